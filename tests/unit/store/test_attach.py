"""A second master on the same store: what it joins, and what it refuses."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import pytest

from promgun.errors import StoreError
from promgun.store.left_overs import sweep
from promgun.store.new_file import Owner
from promgun.store.run_directory import directory_identity
from promgun.store.run_places import (
    attach,
    create_private,
    take_over,
)
from promgun.system.safe_open import open_folder
from tests.support.store_fixtures import (
    descriptors,
    open_directory,
)
from tests.unit.store.test_run_places import NOBODY, left_over

needs_root = pytest.mark.needs_root("give files to another user")


def identity_of(path: Path) -> tuple[int, int]:
    """Return which directory a path leads to."""
    fd = open_folder(path)
    try:
        return directory_identity(fd)
    finally:
        os.close(fd)


def test_attaching_wipes_nothing(tmp_path: Path) -> None:
    named = take_over(tmp_path, Owner())
    (named.slots / "1").write_bytes(b"counting")
    second = attach(named.path, Owner(), named.identity, private=False, second_client=tmp_path)
    assert (named.slots / "1").read_bytes() == b"counting"
    assert (second.identity, second.clients) == (named.identity, named.clients)
    for directory in (named, second):
        directory.close()


def test_what_is_gone_cannot_be_attached(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is gone"):
        attach(tmp_path / "gone", Owner(), identity_of(tmp_path), private=True)


@pytest.mark.parametrize("kind", ["another directory", "a link to the same"])
def test_what_stands_at_the_path_now_is_not_attached_for_it(tmp_path: Path, kind: str) -> None:
    """The old master hands on which directory it is, not only where it was."""
    first = create_private(Owner(), [tmp_path])
    before = descriptors()
    moved = first.path.rename(tmp_path / "moved")
    if kind == "another directory":
        open_directory(first.path).close()
    else:
        first.path.symlink_to(moved)
    with pytest.raises(StoreError, match=r"Somebody replaced the store|is gone"):
        attach(first.path, Owner(), first.identity, private=True)
    assert descriptors() == before
    attach(moved, Owner(), first.identity, private=False).close()
    os.close(first.fd)


def test_what_is_being_removed_cannot_be_attached(tmp_path: Path) -> None:
    fd = open_folder(tmp_path)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="is being removed"):
        attach(tmp_path, Owner(), directory_identity(fd), private=True)
    os.close(fd)


def test_leaving_frees_every_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    for _ in range(5):
        create_private(Owner(), [tmp_path]).close()
        take_over(tmp_path / "named", Owner()).close()
        with contextlib.suppress(StoreError):
            attach(tmp_path / "gone", Owner(), (0, 0), private=True)
    held = take_over(tmp_path / "named", Owner())
    with pytest.raises(StoreError):
        take_over(tmp_path / "named", Owner())
    held.close()
    left_over(tmp_path)
    sweep(tmp_path, Owner())
    assert descriptors() == before


@needs_root
def test_a_store_of_other_workers_cannot_be_attached(tmp_path: Path) -> None:
    """By SIGUSR2: other users could write in none of its slots, another group could not read what masters write."""
    first = create_private(Owner(NOBODY, NOBODY), [tmp_path])
    before = descriptors()
    for other, option in ((Owner(NOBODY - 1, NOBODY), "--user"), (Owner(NOBODY, NOBODY - 1), "--group")):
        with pytest.raises(StoreError, match=f"workers with another {option}") as refused:
            attach(first.path, other, first.identity, private=True)
        assert f"cannot change {option}" in str(refused.value.hint)
    assert descriptors() == before
    attach(first.path, Owner(NOBODY, NOBODY), first.identity, private=True).close()
    first.close()


def test_a_store_without_its_folders_cannot_be_attached_and_nothing_stays_open(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(StoreError, match="is gone"):
        attach(tmp_path, Owner(os.geteuid()), identity_of(tmp_path), private=True)
    assert descriptors() == before
