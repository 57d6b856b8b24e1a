"""A run's directory: its parts, who may write in each, whatever umask there is, and who removes it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.store.new_file import Owner
from promgun.store.run_directory import FORMAT, RunDirectory, directory_identity
from promgun.store.run_places import attach, create_private, take_over
from promgun.system.safe_open import open_folder
from tests.support.store_fixtures import (
    client_of,
    descriptors,
    fork,
    master_of,
    open_directory,
    public_folder,
    slots_of,
    wait_for,
)

NOBODY = 65534
needs_root = pytest.mark.needs_root("give files to another user")


@pytest.fixture(params=[0o022, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """A umask that the user's surroundings may have set."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as path:
        yield path


def modes(path: Path) -> dict[str, int]:
    """Return the mode of a run's directory and of its parts."""
    parts = (path, path / "version", master_of(path), slots_of(path), client_of(path).parent, client_of(path))
    return {str(part.relative_to(path)): stat.S_IMODE(part.stat().st_mode) for part in parts}


def owners(path: Path) -> dict[str, tuple[int, int]]:
    """Return user and group of a run's directory and of its parts."""
    parts = (path, path / "version", master_of(path), slots_of(path), client_of(path).parent, client_of(path))
    return {str(part.relative_to(path)): (part.stat().st_uid, part.stat().st_gid) for part in parts}


MODES = {".": 0o711, "version": 0o644, "master": 0o750, "slots": 0o700, "client": 0o700, "client/multiproc": 0o700}


def test_parts_are_open_to_whom_they_should_be(tmp_path: Path, umask: int) -> None:
    made = create_private(Owner(), [tmp_path])
    assert os.umask(umask) == umask
    assert modes(made.path) == MODES
    assert (made.path / "version").read_text() == FORMAT
    made.close()


def test_a_named_one_has_the_same_parts(tmp_path: Path, umask: int) -> None:
    made = take_over(tmp_path / f"store-{umask}", Owner())
    assert modes(made.path) == MODES
    assert made.clients == (client_of(made.path), tmp_path / f"store-{umask}")
    made.close()


@needs_root
def test_parts_belong_to_whom_they_should(tmp_path: Path, umask: int) -> None:
    made = create_private(Owner(NOBODY, NOBODY), [tmp_path])
    workers = (NOBODY, NOBODY)
    assert owners(made.path) == {
        ".": (0, 0),
        "version": (0, 0),
        "master": (0, NOBODY),
        "slots": workers,
        "client": workers,
        "client/multiproc": workers,
    }
    assert modes(made.path) == MODES
    made.close()
    assert umask


@needs_root
def test_the_workers_user_works_in_its_parts_and_in_no_other(public: Path) -> None:
    made = create_private(Owner(NOBODY, NOBODY), [public])

    def work() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        assert made.is_open_to_me
        (made.slots / "1").write_bytes(b"mine")
        (made.multiproc / "counter_slot1.db").write_bytes(b"mine")
        made.multiproc.rename(made.multiproc.with_name("wiped"))
        made.multiproc.mkdir()
        assert os.listdir(made.master) == []
        for forbidden in (made.path / "planted", made.master / "planted"):
            with pytest.raises(PermissionError):
                forbidden.write_bytes(b"")
        with pytest.raises(PermissionError):
            made.slots.rename(made.path / "elsewhere")
        with pytest.raises(PermissionError):
            os.listdir(made.path)

    assert not made.is_open_to_me
    wait_for(fork(work))
    made.close()
    assert os.listdir(public) == []


@needs_root
def test_the_parts_can_be_given_away_later(tmp_path: Path) -> None:
    made = create_private(Owner(), [tmp_path])
    made.give_to(Owner(NOBODY, NOBODY))
    found = owners(made.path)
    assert found["master"] == (0, NOBODY)
    assert {found[part] for part in ("slots", "client", "client/multiproc")} == {(NOBODY, NOBODY)}
    assert not made.is_open_to_me
    made.close()


@needs_root
def test_what_the_workers_put_in_the_place_of_a_part_is_not_given_away(tmp_path: Path) -> None:
    """Nor followed: it may lead to anything of root's."""
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    made = create_private(Owner(NOBODY, NOBODY), [tmp_path])
    made.multiproc.rmdir()
    made.multiproc.symlink_to(precious)
    made.restore_client()
    with pytest.raises(NotADirectoryError):
        made.give_to(Owner(NOBODY, NOBODY))
    assert (precious.stat().st_uid, stat.S_IMODE(precious.stat().st_mode)) == (0, 0o700)
    made.close()
    assert precious.is_dir()


@needs_root
def test_a_client_directory_that_root_s_code_remade_goes_back_to_the_workers(tmp_path: Path, umask: int) -> None:
    made = create_private(Owner(NOBODY, NOBODY), [tmp_path])
    made.multiproc.rmdir()
    made.multiproc.mkdir()
    made.restore_client()
    assert owners(made.path)["client/multiproc"] == (NOBODY, NOBODY)
    assert modes(made.path) == MODES
    made.close()
    assert umask


@pytest.mark.parametrize("kind", ["missing", "missing with the one above it", "a file"])
def test_a_client_directory_that_is_none_any_more_is_left_to_the_workers(tmp_path: Path, kind: str) -> None:
    made = create_private(Owner(), [tmp_path])
    before = descriptors()
    made.multiproc.rmdir()
    if kind == "a file":
        made.multiproc.touch()
    elif kind != "missing":
        made.multiproc.parent.rmdir()
    made.restore_client()
    assert made.multiproc.exists() == (kind == "a file")
    assert made.multiproc.parent.exists() == (kind != "missing with the one above it")
    assert descriptors() == before
    made.close()


def test_the_identity_is_that_of_the_directory_not_of_its_path(tmp_path: Path) -> None:
    first, second = open_folder(tmp_path), open_folder(tmp_path)
    assert directory_identity(first) == directory_identity(second)
    (tmp_path / "other").mkdir()
    third = open_folder(tmp_path / "other")
    assert directory_identity(first) != directory_identity(third)
    for fd in (first, second, third):
        os.close(fd)


def test_a_worker_leaves_the_lock_to_masters_and_still_finds_its_slots(tmp_path: Path) -> None:
    made = open_directory(tmp_path)
    before = descriptors()
    made.leave_to_masters()
    made.leave_to_masters()
    assert descriptors() == before - 1
    slots_fd = made.open_slots()
    assert os.fstat(slots_fd).st_ino == slots_of(tmp_path).stat().st_ino
    os.close(slots_fd)


def closed_by(made: RunDirectory) -> None:
    """Leave a directory as the process that owns it."""
    made.close_in_this_process()
    made.close()


def test_only_the_process_that_owns_it_closes_it(tmp_path: Path) -> None:
    made = create_private(Owner(), [tmp_path])
    wait_for(fork(made.close))
    assert made.path.is_dir()
    wait_for(fork(lambda: closed_by(made)))
    # The child's lock is ours: whoever holds the same may change it.
    assert not made.path.exists()
    made.close()


def test_a_slots_folder_that_cannot_be_listed_fails_no_exit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows then whether workers live in it: it stays for the sweep of a later run."""
    run = create_private(Owner(), [tmp_path])

    def refuse(_path: object) -> list[str]:
        raise PermissionError(13, "no")

    monkeypatch.setattr("promgun.store.slot_lock.os.listdir", refuse)
    run.close()
    monkeypatch.undo()
    assert run.slots.is_dir()


def test_what_is_to_be_done_before_it_is_removed_is_done_by_the_last_master_only(tmp_path: Path) -> None:
    run = create_private(Owner(), [tmp_path])
    second = attach(run.path, Owner(), run.identity, private=True)
    done: list[bool] = []
    for each in (run, second):
        each.close((), lambda run: done.append(run.slots.is_dir()))
    assert done == [True]
    assert not run.path.exists()
