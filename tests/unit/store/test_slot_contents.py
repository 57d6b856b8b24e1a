"""Files of slots are opened once, and still it is what the folder names that is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promgun.store.board import SIZE, Role
from promgun.store.slot_contents import SlotContents
from promgun.store.slot_file import FILE_SIZE
from promgun.system.kept_files import KeptFiles
from tests.support.store_fixtures import opened, slots_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a master and three slots, whose owners are gone."""
    for role, number in ((Role.MASTER, 1), (Role.WORKER, 3)):
        stores = [opened(tmp_path, role) for _ in range(number)]
        for store in stores:
            store.__enter__().store.own_slot()
        for store in stores:
            store.__exit__(None, None, None)
    return tmp_path


def slots(contents: SlotContents) -> list[int]:
    return [content.board.slot for content in contents.read()]


@pytest.fixture
def opened_names(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Names that were opened.

    An audit hook would see them too, and stay in the process: with one, two threads that begin at once while a test run
    is measured may fail in ``sys.settrace`` (CPython 3.11).
    """
    names: list[object] = []
    real = os.open

    def count_opens(name: Any, *args: Any, **kwargs: Any) -> int:
        names.append(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(os, "open", count_opens)
    return names


@pytest.mark.parametrize(("most", "again"), [(9, 0), (2, 2), (0, 4)], ids=["all", "some", "none"])
def test_a_file_is_opened_once_where_there_is_room(
    run: Path, opened_names: list[object], most: int, again: int
) -> None:
    contents = SlotContents(run, KeptFiles(most))
    assert slots(contents) == [-1, 1, 2, 3]
    opened_names.clear()
    assert slots(contents) == [-1, 1, 2, 3]
    assert len([name for name in opened_names if name in {"m0", "1", "2", "3"}]) == again


def replace(slot: Path) -> None:
    content = slot.read_bytes()
    new = slot.with_name("new")
    new.write_bytes(content)
    new.rename(slot)


def cut(slot: Path) -> None:
    os.truncate(slot, 511)


def empty(slot: Path) -> None:
    slot.write_bytes(b"")


def swell(slot: Path) -> None:
    os.truncate(slot, FILE_SIZE + 1)


def link(slot: Path) -> None:
    slot.rename(slot.with_name("elsewhere"))
    slot.symlink_to("elsewhere")


def pipe(slot: Path) -> None:
    slot.unlink()
    os.mkfifo(slot)


def folder(slot: Path) -> None:
    slot.unlink()
    slot.mkdir()


@pytest.mark.parametrize("change", [Path.unlink, cut, empty, swell, link, pipe, folder])
def test_what_is_no_slot_file_any_more_is_left_out(run: Path, change: Callable[[Path], None]) -> None:
    kept = KeptFiles(9)
    contents = SlotContents(run, kept)
    contents.read()
    change(slots_of(run) / "2")
    assert slots(contents) == [-1, 1, 3]
    assert slots(SlotContents(run)) == [-1, 1, 3]


def test_the_file_that_has_the_name_is_read(run: Path) -> None:
    kept = KeptFiles(9)
    contents = SlotContents(run, kept)
    before = contents.read()[2].identity
    replace(slots_of(run) / "2")
    found = contents.read()[2]
    assert found.identity != before
    assert found.identity[:2] == (os.stat(slots_of(run)).st_dev, os.stat(slots_of(run) / "2").st_ino)
    kept.close_unused()
    contents.read()
    kept.close_unused()
    assert len(kept) == 4, "what was replaced is closed"


def test_two_names_may_change_places(run: Path) -> None:
    contents = SlotContents(run, KeptFiles(9))
    one, three = [contents.read()[place].identity for place in (1, 3)]
    folder = slots_of(run)
    for old, new in (("1", "x"), ("3", "1"), ("x", "3")):
        (folder / old).rename(folder / new)
    assert [contents.read()[place].identity for place in (1, 3)] == [three, one]


def test_another_folder_is_read_in_its_place(run: Path) -> None:
    contents = SlotContents(run, KeptFiles(9))
    contents.read()
    slots_of(run).rename(run / "old")
    slots_of(run).mkdir()
    assert slots(contents) == [-1]


def test_what_changes_in_a_file_is_seen(run: Path) -> None:
    contents = SlotContents(run, KeptFiles(9))
    before = contents.read()[1]
    with open(slots_of(run) / "1", "r+b") as file:
        file.seek(SIZE)
        file.write(b"x" * 20_000)
    after = contents.read()[1]
    assert after.rows.startswith(b"x" * 20_000)
    assert after.size >= before.size + 16_384
