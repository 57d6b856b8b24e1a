"""Listings that are kept as long as no name in the directory has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from promgun.store.folder_listing import SETTLED_NS, FolderListing
from promgun.system.safe_open import opened_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1").write_text("one")
    (tmp_path / "2").write_text("two")
    return tmp_path


@pytest.fixture
def folder_fd(folder: Path) -> Iterator[int]:
    with opened_folder(folder) as fd:
        yield fd


def in_a_minute() -> int:
    return time.time_ns() + 60_000_000_000


def listed(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def add(folder: Path) -> None:
    (folder / "3").touch()


def remove(folder: Path) -> None:
    (folder / "1").unlink()


def replace(folder: Path) -> None:
    (folder / "1").rename(folder / "2")


def replace_and_set_the_time_back(folder: Path) -> None:
    before = folder.stat()
    replace(folder)
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def wait_for_another_time(folder: Path, other: Path) -> None:
    """Wait until what changes now gets another time than the last change of ``folder`` has."""
    deadline = time.monotonic() + 10
    while other.stat().st_ctime_ns <= folder.stat().st_ctime_ns:
        assert time.monotonic() < deadline
        os.utime(other)


@pytest.mark.parametrize("change", [add, remove, replace, replace_and_set_the_time_back])
def test_a_name_that_changes_is_seen(
    folder: Path, folder_fd: int, change: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    listing = FolderListing(in_a_minute)
    before = listing.read(folder_fd)
    assert dict(before) == listed(folder)
    assert listing.read(folder_fd) is before
    wait_for_another_time(folder, tmp_path_factory.mktemp("other"))
    change(folder)
    assert dict(listing.read(folder_fd)) == listed(folder) != dict(before)


def test_another_folder_is_listed(folder: Path, folder_fd: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    listing = FolderListing(in_a_minute)
    listing.read(folder_fd)
    other = tmp_path_factory.mktemp("other")
    (other / "9").touch()
    with opened_folder(other) as other_fd:
        assert dict(listing.read(other_fd)) == listed(other)
    assert dict(listing.read(folder_fd)) == listed(folder)


def test_a_folder_that_has_just_changed_is_listed_again(folder: Path, folder_fd: int) -> None:
    """Two changes within a tick of the kernel's clock leave the same time."""
    changed_at = folder.stat().st_ctime_ns
    now = changed_at + SETTLED_NS
    listing = FolderListing(lambda: now)
    before = listing.read(folder_fd)
    assert listing.read(folder_fd) is not before
    now += 1
    before = listing.read(folder_fd)
    assert listing.read(folder_fd) is before
