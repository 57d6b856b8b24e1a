"""Unique memory is read outside of pages, one process at a time, seldom, and only while somebody asks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from promgun.collect import unique_memory
from promgun.collect.page import Collector
from promgun.collect.reading import InstanceReader
from promgun.collect.unique_memory import UniqueMemory, read_unique
from promgun.store.board import Cell, Role
from tests.support.harness import wait_until
from tests.support.store_fixtures import opened

HOLDS_24_MIB = "import os, sys; held = os.urandom(24 << 20); print(flush=True); sys.stdin.read()"
WORKERS = {11: 1, 12: 1, 13: 1, 14: 1}


@pytest.fixture
def big() -> Iterator[subprocess.Popen[str]]:
    """A process with memory of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_24_MIB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


class Walks:
    """Stands for the kernel and the clock: notes when which process was read, and tells its size."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.now = 1000.0
        self.done: list[tuple[float, int]] = []
        self.unreadable: set[int] = set()
        self.memory = UniqueMemory(seconds, read=self._read, clock=lambda: self.now)

    def _read(self, pid: int) -> int | None:
        self.done.append((self.now - 1000.0, pid))
        return None if pid in self.unreadable else 1000 * pid

    def pass_time(self, seconds: float, *, starts: dict[int, int] | None = None, every: float = 15.0) -> None:
        """Let the thread's steps and pages take their turns for ``seconds``; no pages without ``starts``."""
        end, page = self.now + seconds, self.now
        while self.now < end:
            if starts is not None and self.now >= page:
                self.memory.sizes(starts)
                page += every
            pause = self.memory.step()
            assert pause > 0
            self.now = min(self.now + pause, end, page if starts is not None else end)


def test_each_worker_is_read_once_in_that_time_and_no_two_together() -> None:
    walks = Walks()
    walks.pass_time(300, starts=WORKERS)
    times = [at for at, _ in walks.done]
    assert [pid for _, pid in walks.done[:8]] == [11, 12, 13, 14] * 2
    assert 0.0 < times[0] < 1.0, "not during the page that asked first"
    assert all(later - earlier >= 15.0 for earlier, later in pairwise(times))
    assert len(walks.done) == 20, "a walk in 15 seconds: each worker once a minute"


def test_a_single_worker_is_read_once_a_minute_whatever_asks() -> None:
    walks = Walks()
    walks.pass_time(300, starts={11: 1}, every=0.1)
    assert len(walks.done) == 5


def test_more_workers_than_seconds_are_read_one_a_second() -> None:
    walks = Walks(seconds=5)
    walks.pass_time(60, starts=dict.fromkeys(range(1, 21), 1), every=1.0)
    assert len(walks.done) == 60
    assert [pid for _, pid in walks.done[:20]] == list(range(1, 21))


def test_new_workers_do_not_have_the_others_read_more_often() -> None:
    walks = Walks()
    walks.pass_time(120, starts={11: 1})
    walks.pass_time(120, starts={11: 1, 12: 1})
    mine = [at for at, pid in walks.done if pid == 11]
    assert all(later - earlier >= 60.0 for earlier, later in pairwise(mine))
    assert [pid for at, pid in walks.done if at > 120] == [12, 11, 12, 11]


def test_nobody_is_read_while_nobody_scrapes() -> None:
    walks = Walks()
    walks.pass_time(600)
    assert not walks.done
    walks.memory.sizes(WORKERS)
    walks.pass_time(3600)
    read = len(walks.done)
    assert 4 <= read <= 12
    assert walks.done[-1][0] < 600 + 180
    walks.memory.sizes(WORKERS)
    walks.pass_time(0.2)
    assert len(walks.done) == read, "the page that asked is not disturbed"
    walks.pass_time(1)
    assert len(walks.done) == read + 1


def test_absent_until_read_then_kept_until_the_process_is_gone() -> None:
    walks = Walks()
    assert walks.memory.sizes(WORKERS) == {}
    walks.pass_time(20)
    assert walks.memory.sizes(WORKERS) == {11: 11_000, 12: 12_000}
    assert walks.memory.sizes({12: 1, 13: 1}) == {12: 12_000}
    assert walks.memory.sizes(WORKERS) == {12: 12_000}, "a worker that was gone is another one"


def test_a_pid_that_another_process_took_is_another_process() -> None:
    walks = Walks()
    walks.memory.sizes({11: 1})
    walks.pass_time(5)
    assert walks.memory.sizes({11: 1}) == {11: 11_000}
    assert walks.memory.sizes({11: 2}) == {}


def test_what_the_kernel_does_not_tell_is_absent_and_not_asked_again_at_once() -> None:
    walks = Walks()
    walks.unreadable = {11}
    walks.pass_time(60, starts={11: 1})
    assert walks.memory.sizes({11: 1}) == {}
    assert len(walks.done) == 1


def test_turned_off_nothing_is_read() -> None:
    walks = Walks(seconds=0)
    walks.pass_time(300, starts=WORKERS)
    walks.memory.follow()
    assert not walks.done
    assert walks.memory.sizes(WORKERS) == {}


def test_the_thread_reads_after_the_first_page(big: subprocess.Popen[str]) -> None:
    memory = UniqueMemory(60)
    starts = {big.pid: 1}
    assert memory.sizes(starts) == {}
    memory.follow()
    wait_until(lambda: memory.sizes(starts))
    size = memory.sizes(starts)[big.pid]
    assert size == pytest.approx(psutil.Process(big.pid).memory_full_info().uss, rel=0.01)
    assert size > 24 << 20


def test_without_smaps_psutil_is_asked(big: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    by_kernel = read_unique(big.pid)
    monkeypatch.setattr(unique_memory, "HAS_SMAPS_ROLLUP", False)
    monkeypatch.setattr(unique_memory, "psutil", psutil, raising=False)
    assert read_unique(big.pid) == pytest.approx(by_kernel, rel=0.01)
    big.kill()
    big.wait()
    assert read_unique(big.pid) is None
    monkeypatch.setattr(unique_memory, "HAS_SMAPS_ROLLUP", True)
    assert read_unique(big.pid) is None


def test_pages_show_workers_and_no_page_walks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as place:
        place.store.own_slot(Role.WORKER)
        place.store.board.cells[Cell.BOOTED] = 1
        walked: list[int] = []

        def walk(pid: int) -> int:
            walked.append(pid)
            return 4096

        monkeypatch.setattr(unique_memory, "unique_memory", walk)
        memory = UniqueMemory(60, clock=lambda: now)
        reader = InstanceReader(tmp_path, memory)
        now = 1000.0
        assert reader.read(whole=True).unique_memory == {}
        assert not walked
        now += 1.0
        memory.step()
        assert walked == [os.getpid()]
        assert reader.read(whole=True).unique_memory == {os.getpid(): 4096}
        assert reader.read(whole=False).unique_memory == {}
        # A page that is made once, as by ``metrics dump``, reads none.
        families = {family.name for family in Collector(tmp_path).collect()}
        assert "gunicorn_worker_resident_memory_bytes" in families
        assert "gunicorn_worker_unique_memory_bytes" not in families
        assert len(walked) == 1
