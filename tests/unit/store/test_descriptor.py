"""Descriptors that the application closed and whose numbers it uses again: nothing is done to its files."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.store.descriptor import Descriptor
from promgun.store.files import Owner, ValueFile
from promgun.store.slot_lock import SlotLock, claim_slot
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
