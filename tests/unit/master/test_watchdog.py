"""When a master looks at the heartbeats of its workers."""

from __future__ import annotations

import logging
import os
import time
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import Any

import pytest

from promgun.master import watchdog
from promgun.master.watchdog import StackDumpWatchdog
from promgun.store import run_reader
from promgun.store.board import Cell
from promgun.workers._heartbeat_marks import marking


class Loop:
    """What Gunicorn does with workers that are silent."""

    def __init__(self) -> None:
        self.looked = 0
        self.waited = 0.0

    def murder_workers(self) -> None:
        """Count the look."""
        self.looked += 1

    def wait_for_signals(self, timeout: float) -> list[int]:
        """Note how long it would wait."""
        self.waited = timeout
        return []


class Master(StackDumpWatchdog, Loop):
    """A master with workers whose heartbeats the test sets."""

    def __init__(self, *beats: float, ratio: float = 0.9, has_loop: bool = False) -> None:
        super().__init__()
        self.cfg, self.timeout = SimpleNamespace(stack_dump_at=ratio), 30
        self.log, self.asked = logging.getLogger("master"), list[int]()
        self.boards = 0
        self.context = SimpleNamespace(directory=None)
        self.WORKERS = {
            pid: SimpleNamespace(
                tmp=SimpleNamespace(last_update=lambda beat=beat: beat, fileno=lambda: -1),
                aborted=False,
                has_loop=has_loop,
                slot=SimpleNamespace(number=pid),
            )
            for pid, beat in enumerate(beats, 1)
        }

    def ask_for_stacks(self, pid: int, worker: Any) -> None:  # noqa: ARG002 - the signature that is called
        """Note who is asked."""
        self.asked.append(pid)


@pytest.mark.parametrize("ratio", [0.9, 0.0])
def test_nobody_looks_while_no_worker_can_have_been_silent_for_long(ratio: float, clock: list[float]) -> None:
    master = Master(995.0, 1000.0, ratio=ratio)
    patience = 30 * (ratio or 1.0)
    for clock[0] in (1000.0, 1010.0, 995.0 + patience - 1):
        master.murder_workers()
    assert master.looked == 0
    clock[0] = 995.0 + patience + 1
    master.murder_workers()
    assert (master.looked, master.asked) == (1, [1])
    master.timeout = 5  # a reload
    clock[0] = 1011.0
    master.murder_workers()
    assert (master.looked, master.asked) == (2, [1, 1, 2])


def test_a_first_heartbeat_is_on_another_clock(clock: list[float]) -> None:
    master = Master(1.7e9, 0.0)
    master.murder_workers()
    clock[0] = 1026.0
    master.murder_workers()
    assert master.looked == 0
    clock[0] = 1028.0
    master.WORKERS[1].tmp.last_update = lambda: 1000.0
    master.murder_workers()
    assert (master.looked, master.asked) == (1, [1])


@pytest.mark.usefixtures("clock")
def test_the_board_of_a_loop_that_has_just_sent_a_heartbeat_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(run_reader, "read_slot_board", lambda _directory, number: read.append(number))
    Master(999.5, 1000.0, has_loop=True).murder_workers()
    assert read == []
    Master(998.9, 999.9, 1.7e9, 0.0, has_loop=True).murder_workers()
    assert read == [1, 3, 4]


def test_a_loop_that_is_late_is_looked_at_again_when_it_will_be_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request runs on it, which the mark on its heartbeat says, so that its board is read however new that is."""
    monkeypatch.setattr(os, "kill", lambda pid, _signal: killed.append(pid))
    killed: list[int] = []
    with TemporaryFile() as file:
        marking(file)()
        master = Master(time.monotonic(), has_loop=True)
        master.WORKERS[1].tmp.fileno = file.fileno
        due, pid = time.monotonic_ns() - 400_000_000, 1
        board = {Cell.LOOP_DUE: due, Cell.PID: pid, Cell.DRAINING: 0}
        monkeypatch.setattr(run_reader, "read_slot_board", lambda _directory, _number: board)
        master.murder_workers()
        master.wait_for_signals()
        assert 0.3 < master.waited < 0.65
        assert killed == []
        for board[Cell.LOOP_DUE] in (due - 1_000_000_000, due - 1_000_000_000, due - 900_000_000):
            # The same block, once; then another one behind the same heartbeat.
            master.murder_workers()
        assert killed == [1, 1]
        master.wait_for_signals()
        assert master.waited == 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: now[0], monotonic_ns=time.monotonic_ns))
    return now
