"""Descriptors that stay open between readings: never too many, closed when nobody wants them, theirs alone."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from promgun.system.kept_files import MOST_KEPT, KeptFiles, most_kept
from promgun.system.procfs import ProcessFiles, read_usage

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are read in /proc")


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def null() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def test_there_are_never_more_than_allowed() -> None:
    kept = KeptFiles(2)
    fds = [null() for _ in range(3)]
    assert [kept.keep(number, fd) for number, fd in enumerate(fds)] == [True, True, False]
    assert [kept.get(number) for number in range(3)] == [*fds[:2], None]
    os.close(fds[2])
    kept.drop(0)
    assert [is_open(fd) for fd in fds] == [False, True, False]


def test_what_a_reading_does_not_ask_for_is_closed_at_its_end() -> None:
    kept = KeptFiles(9)
    fds = [null() for _ in range(3)]
    for number, fd in enumerate(fds):
        kept.keep(number, fd)
    kept.close_unused()
    assert all(map(is_open, fds))
    kept.get(1)
    kept.close_unused()
    assert [is_open(fd) for fd in fds] == [False, True, False]
    del kept
    assert not is_open(fds[1])


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_two_thirds_of_what_a_process_may_open_are_left(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, limits[1]))
    assert most_kept() == 100
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert most_kept() == min(MOST_KEPT, limits[0] // 3)


@ON_LINUX
def test_a_process_is_read_again_through_what_was_opened_first() -> None:
    kept = KeptFiles(9)
    files = ProcessFiles(kept)
    first = files.usage(os.getpid())
    held = len(os.listdir("/proc/self/fd"))
    _ = [number**2 for number in range(10**6)]
    second = files.usage(os.getpid())
    now = read_usage(os.getpid())
    assert first is not None
    assert second is not None
    assert now is not None
    assert len(kept) == 2
    assert len(os.listdir("/proc/self/fd")) == held
    assert first.start == second.start == now.start
    assert first.user + first.system <= second.user + second.system <= now.user + now.system
    assert now.resident > 0
    assert KeptFiles(0).keep("none", -1) is False


@ON_LINUX
@pytest.mark.parametrize("most", [0, 9])
def test_a_process_that_ends_is_seen_to_end(most: int) -> None:
    kept = KeptFiles(most)
    files = ProcessFiles(kept)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        living = files.usage(process.pid)
        assert living is not None
        assert not living.ended
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        zombie = files.usage(process.pid)
        assert zombie is not None
        assert zombie.ended
        process.wait()
        kept.close_unused()
        assert files.usage(process.pid) is None
    kept.close_unused()
    assert len(kept) == 0, "a descriptor of what is gone is of no use"
