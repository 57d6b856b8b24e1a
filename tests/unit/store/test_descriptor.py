"""Descriptors that the application closed and whose numbers it uses again: nothing is done to its files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.config.listeners import Listener, bind, close_and_unlink, is_lost
from promgun.config.metrics_addresses import parse_address
from promgun.store.descriptor import Descriptor
from promgun.store.files import ValueFile
from promgun.store.master_file import MasterFile
from promgun.store.new_file import Owner
from promgun.store.run_places import create_private
from promgun.store.slot_lock import SlotLock, claim_slot
from promgun.store.worker_table import TABLE_SIZE, WorkerTable, parse_worker_table
from promgun.system.safe_open import open_folder
from tests.support.store_fixtures import descriptors, key_of, read_values


@pytest.fixture
def slots_fd(tmp_path: Path) -> Iterator[int]:
    fd = open_folder(tmp_path)
    yield fd
    os.close(fd)


class Application:
    """Closes a descriptor of ours and opens a file of its own under that number."""

    def __init__(self, folder: Path, fd: int) -> None:
        self.path = folder / "theirs"
        self.path.write_bytes(b"theirs")
        os.close(fd)
        opened = os.open(self.path, os.O_RDWR)
        if opened != fd:
            os.dup2(opened, fd)
            os.close(opened)
        self.fd = fd

    def close(self) -> None:
        """Assert that the file is open and as it was, then close it."""
        assert os.path.samestat(os.fstat(self.fd), self.path.stat())
        assert self.path.read_bytes() == b"theirs"
        with self.path.open() as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(self.fd)


def fd_of(lock: SlotLock) -> int:
    assert lock.fd is not None
    return lock.fd


def is_held(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_lock_whose_descriptor_is_another_file_s_is_taken_anew(slots_fd: int, tmp_path: Path) -> None:
    lock = claim_slot(slots_fd, Owner())
    application = Application(tmp_path, fd_of(lock))
    assert not is_held(tmp_path / "1.lock")
    assert lock.heal(tmp_path) is False, "nobody removed the file"
    assert is_held(tmp_path / "1.lock")
    assert fd_of(lock) != application.fd
    lock.release()
    assert not is_held(tmp_path / "1.lock")
    application.close()


def test_a_lock_that_is_let_go_closes_no_other_file(slots_fd: int, tmp_path: Path) -> None:
    lock = claim_slot(slots_fd, Owner())
    application = Application(tmp_path, fd_of(lock))
    lock.release()
    assert lock.fd is None
    application.close()


def test_a_closed_lock_whose_file_is_gone_too_is_made_again(slots_fd: int, tmp_path: Path) -> None:
    lock = claim_slot(slots_fd, Owner())
    application = Application(tmp_path, fd_of(lock))
    (tmp_path / "1.lock").unlink()
    assert lock.heal(tmp_path) is True
    assert is_held(tmp_path / "1.lock")
    lock.release()
    application.close()


def test_a_closed_lock_that_another_process_took_is_told_at_each_try(slots_fd: int, tmp_path: Path) -> None:
    lock = claim_slot(slots_fd, Owner())
    application = Application(tmp_path, fd_of(lock))
    other = claim_slot(slots_fd, Owner())
    assert other.number == 1
    for _ in range(2):
        with pytest.raises(OSError, match="taken slot 1"):
            lock.heal(tmp_path)
    other.release()
    assert lock.heal(tmp_path) is False
    lock.release()
    application.close()


def test_a_value_file_writes_into_no_other_file(tmp_path: Path) -> None:
    before = descriptors()
    path = tmp_path / "1.counter"
    file = ValueFile(path, Owner())
    file.cells[file.indexes([key_of(1)])[0]] = 1.0
    fd = file._descriptor.fd
    assert fd is not None
    application = Application(tmp_path, fd)
    keys = [key_of(f"{number:06}") for number in range(400)]  # more than fit without growing
    file.heal()
    for index in file.indexes(keys):
        file.cells[index] = 2.0
    path.unlink()
    assert not file.heal().error
    for key in keys[:2]:
        file.cells[file.indexes([key])[0]] += 1.0
    assert read_values(path) == {key_of(1): 1.0} | dict.fromkeys(keys, 2.0) | dict.fromkeys(keys[:2], 3.0)
    file.close()
    application.close()
    del file
    assert descriptors() == before


def test_a_descriptor_is_opened_again_only_for_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    descriptor = Descriptor(os.open(path, os.O_RDWR))
    assert descriptor.of(path) == descriptor.fd
    application = Application(tmp_path, descriptor.of(path))
    path.rename(tmp_path / "moved")
    path.touch()
    with pytest.raises(OSError, match=r"[Ss]tale") as caught:
        descriptor.of(path)
    assert caught.value.errno == errno.ESTALE
    assert descriptor.of(tmp_path / "moved") != application.fd
    for _ in range(2):
        descriptor.close()
        assert descriptor.fd is None
    application.close()


def number_of(path: Path) -> int:
    """Return the descriptor that this process has of a file or folder, the lowest if there are several."""
    identity = os.stat(path)
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), identity):
                return int(name)
    raise AssertionError(f"{path} is not open")


def test_a_master_s_values_and_its_table_go_on_in_their_files(tmp_path: Path) -> None:
    before = descriptors()
    paths = tmp_path / "m0", tmp_path / "m0.workers"
    fds = [os.open(path, os.O_RDWR | os.O_CREAT) for path in paths]
    fcntl.flock(fds[0], fcntl.LOCK_EX)
    file, table = MasterFile(fds[0], 1 << 16, paths[0]), WorkerTable(fds[1], paths[1])
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    applications = [Application(folder, fd) for folder, fd in zip(folders, fds, strict=True)]
    file.memory[:3] = b"abc"
    file.flush(1 << 16)
    table.forked(3, 4711, 99, 1000)
    assert paths[0].read_bytes()[:3] == b"abc"
    assert dict(parse_worker_table(paths[1].read_bytes()[:TABLE_SIZE]))[3].pid == 4711
    assert is_held(paths[0]), "no other master may take the number"
    file.close()
    table.close()
    for application in applications:
        application.close()
    assert descriptors() == before


def test_a_master_s_values_are_not_written_to_a_file_that_another_master_has_taken(tmp_path: Path) -> None:
    path = tmp_path / "m0"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    file = MasterFile(fd, 1 << 16, path)
    application = Application(tmp_path, fd)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.memory[:3] = b"abc"
        with pytest.raises(BlockingIOError):
            file.flush(1 << 16)
    file.flush(1 << 16)
    assert path.read_bytes()[:3] == b"abc"
    file.close()
    application.close()


@pytest.mark.parametrize("gone", [False, True])
def test_a_run_s_directory_is_left_and_removed_and_nothing_of_the_application_s(tmp_path: Path, gone: bool) -> None:  # noqa: FBT001 - pytest's
    before = descriptors()
    run = create_private(Owner(), [tmp_path])
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").touch()
    fd = number_of(run.path)
    os.close(fd)
    opened = os.open(theirs, os.O_RDONLY | os.O_DIRECTORY)
    assert opened == fd
    if gone:
        moved = run.path.rename(tmp_path / "moved")
        with pytest.raises(FileNotFoundError):
            run.open_slots()
        assert run.own_master == run.master
    else:
        os.close(run.open_slots())
        assert is_shared(run.path)
    run.close()
    assert (moved if gone else run.path).exists() is gone
    assert os.listdir(opened) == ["file"]
    os.close(opened)
    assert descriptors() == before


def is_shared(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix:{}/socket"])
def test_a_listener_is_lost_and_its_number_left_alone(tmp_path: Path, address: str) -> None:
    listener = bind(parse_address(address.format(tmp_path)))
    assert isinstance(listener, Listener)
    assert not is_lost(listener)
    application = Application(tmp_path, listener.fileno())
    assert is_lost(listener)
    close_and_unlink(listener)
    assert listener.fileno() == -1
    application.close()
