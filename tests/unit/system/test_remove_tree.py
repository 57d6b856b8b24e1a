"""Folders that somebody with fewer rights has filled: emptied within bounds, through no link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from promgun.system import remove_tree
from promgun.system.remove_tree import DEEPEST, empty_folder
from promgun.system.safe_open import open_folder
from tests.support.store_fixtures import OBSTACLES, descriptors, in_fresh_interpreter


def nested(path: Path, depth: int) -> None:
    """Make folders in folders, deeper than any path may be long."""
    folder = open_folder(path)
    for _ in range(depth):
        os.mkdir("d", dir_fd=folder)
        inner = open_folder("d", dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)


def emptied(path: Path, last: str = "") -> bool:
    """Empty a folder; every descriptor is closed again."""
    before = descriptors()
    folder_fd = open_folder(path)
    try:
        return empty_folder(folder_fd, last=last)
    finally:
        os.close(folder_fd)
        assert descriptors() == before


@pytest.mark.parametrize("depth", [0, 1, DEEPEST - 1, DEEPEST, DEEPEST + 1, 3 * DEEPEST, 1100])
def test_what_lies_however_deep_goes(tmp_path: Path, depth: int) -> None:
    nested(tmp_path, depth)
    (tmp_path / "kept until the end").touch()
    assert emptied(tmp_path, "kept until the end")
    assert os.listdir(tmp_path) == []


@pytest.mark.unmeasured("it starts many interpreters, and measuring doubles what each costs")
@pytest.mark.parametrize("kind", OBSTACLES)
def test_links_are_removed_and_not_followed(tmp_path: Path, kind: str) -> None:
    folder, victim = tmp_path / "folder", tmp_path / "victim"
    folder.mkdir()
    victim.mkdir()
    (victim / "precious").touch()
    OBSTACLES[kind](folder / "entry")
    (folder / "link").symlink_to(victim)
    (folder / "inner").mkdir()
    (folder / "inner" / "link").symlink_to(victim / "precious")
    assert _emptied(str(folder)) is in_fresh_interpreter(_emptied, folder, timeout=30) is True
    assert os.listdir(victim) == ["precious"]


def _emptied(path: str) -> bool:
    return emptied(Path(path))


def test_what_cannot_be_removed_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c", "last"):
        (tmp_path / name).touch()
    real = os.unlink

    def refuse(path: str, **more: int) -> None:
        if path == "b":
            raise PermissionError
        real(path, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        assert not emptied(tmp_path, "last")
    assert sorted(os.listdir(tmp_path)) == ["b", "last"]
    assert emptied(tmp_path, "last")


def test_entries_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr(remove_tree, "MOST_ENTRIES", 4)
    for left in (6, 2, 0):
        assert emptied(tmp_path) == (left == 0)
        assert len(os.listdir(tmp_path)) == left
