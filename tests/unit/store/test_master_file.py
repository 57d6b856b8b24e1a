"""Private memory that is written out: what has changed and nothing else, and later what could not be."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.store.master_file import MasterFile
from tests.support.store_fixtures import fork, wait_for

SIZE = 1 << 16
#: Where it would be opened again.
PATH = Path()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "m0", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def test_what_it_held_last_is_there(fd: int) -> None:
    os.pwrite(fd, b"before", 10)
    assert bytes(MasterFile(fd, SIZE, PATH).memory) == (bytes(10) + b"before").ljust(SIZE, b"\0")


def test_what_changed_is_written_and_nothing_behind_the_end(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[int, int]] = []
    real = os.pwrite

    def watch(to: int, data: bytes, offset: int) -> int:
        written.append((offset, len(data)))
        return real(to, data, offset)

    file = MasterFile(fd, SIZE, PATH)
    monkeypatch.setattr(os, "pwrite", watch)
    file.memory[5000:5003] = b"abc"
    file.memory[9000:9003] = b"xyz"
    file.flush(8999)
    assert written == [(4096, 4096)]
    file.flush(8999)
    assert len(written) == 1
    file.flush(SIZE)
    assert written[1:] == [(8192, 4096)]
    assert os.pread(fd, 3, 5000) + os.pread(fd, 3, 9000) == b"abcxyz"


def test_what_could_not_be_written_is_written_next_time(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = MasterFile(fd, SIZE, PATH)
    file.memory[:3] = b"abc"
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            file.flush(SIZE)
    file.flush(SIZE)
    assert os.pread(fd, 3, 0) == b"abc"


def test_what_others_write_meanwhile_is_not_believed(fd: int) -> None:
    file = MasterFile(fd, SIZE, PATH)
    os.pwrite(fd, b"forged", 0)
    assert bytes(file.memory[:6]) == bytes(6)


def test_pages_that_are_never_written_take_no_memory(fd: int) -> None:
    before = _resident()
    file = MasterFile(fd, 64 << 20, PATH)
    file.memory[5 << 20] = 1
    file.flush(1 << 16)
    assert _resident() - before < 8 << 20
    assert (file.memory[5 << 20], file.memory[6 << 20]) == (1, 0)


def test_a_child_does_not_write_in_its_parent_s_memory(fd: int) -> None:
    file = MasterFile(fd, SIZE, PATH)

    def write() -> None:
        file.memory[5] = 1

    wait_for(fork(write))
    assert file.memory[5] == 0


def _resident() -> int:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE
