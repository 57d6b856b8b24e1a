"""Figures of processes as seen from outside, and totals that outlive them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from promgun.collect import processes
from promgun.collect.processes import Counts, Figures, SlotCounters, process_figures
from promgun.collect.slot_owners import owners_of
from promgun.store.board import Cell, Role
from promgun.system.procfs import read_usage
from tests.support.offenders import offenders
from tests.support.store_fixtures import opened

BUSY = """
import os, sys, threading, time
files = [open(os.devnull) for _ in range(20)]
held = bytearray(os.urandom(1 << 20) * 24)
for _ in range(3):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
end = time.process_time() + 0.2
while time.process_time() < end:
    pass
print("ready", flush=True)
sys.stdin.read()
"""
FIGURES = Figures(resident=1, user=0, system=0, fds=1, threads=1, voluntary=0, involuntary=0)


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[str]]:
    """A process with memory, threads, descriptors and CPU time to be seen."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def use_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have figures read as on a system without /proc, where psutil is imported."""
    monkeypatch.setattr(processes, "HAS_PROC", False)
    monkeypatch.setattr(processes, "psutil", psutil, raising=False)


def figures_of(pid: int) -> Figures | None:
    """Return the figures of a process as a page shows them."""
    return process_figures(pid, read_usage(pid))


@pytest.mark.parametrize("by_proc", [True, False], ids=["proc", "psutil"])
def test_figures_are_those_of_the_process(
    busy: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, *, by_proc: bool
) -> None:
    if not by_proc:
        use_psutil(monkeypatch)
    figures = process_figures(busy.pid, read_usage(busy.pid) if by_proc else None)
    assert figures is not None
    mib = 1 << 20
    assert 24 * mib < figures.resident < 150 * mib
    assert figures.user + figures.system >= 150_000_000
    assert figures.threads == 4
    assert figures.fds == len(os.listdir(f"/proc/{busy.pid}/fd")) >= 23
    assert figures.voluntary > 0


def test_a_process_that_waits_to_be_reaped_shows_only_what_it_used(busy: subprocess.Popen[str]) -> None:
    busy.kill()
    os.waitid(os.P_PID, busy.pid, os.WEXITED | os.WNOWAIT)
    figures = figures_of(busy.pid)
    assert figures is not None
    assert figures.user + figures.system >= 150_000_000
    assert (figures.resident, figures.fds) == (0, None)


@pytest.mark.parametrize("by_proc", [True, False], ids=["proc", "psutil"])
def test_a_process_that_is_gone_has_none(
    busy: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, *, by_proc: bool
) -> None:
    if not by_proc:
        use_psutil(monkeypatch)
    assert figures_of(busy.pid) is not None
    busy.kill()
    busy.wait()
    assert read_usage(busy.pid) is None
    assert process_figures(busy.pid, None) is None


def test_what_the_kernel_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise psutil.AccessDenied(1)

    def forbidden(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda _: os.stat_result([0] * 10))
        before_6_2 = figures_of(os.getpid())
        patched.setattr(os, "listdir", forbidden)
        figures = figures_of(os.getpid())
    assert before_6_2 is not None
    assert before_6_2.fds == len(os.listdir("/proc/self/fd"))
    assert figures is not None
    assert figures.fds is None
    use_psutil(monkeypatch)
    assert process_figures(os.getpid(), None) is not None
    monkeypatch.setattr(psutil.Process, "num_ctx_switches", denied)
    assert process_figures(os.getpid(), None) is None


def test_cpu_time_grows() -> None:
    first = figures_of(os.getpid())
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    second = figures_of(os.getpid())
    assert first is not None
    assert second is not None
    assert second.user + second.system > first.user + first.system


@pytest.mark.parametrize("has_proc", [True, False], ids=["proc", "psutil"])
def test_boards_come_with_the_figures_of_living_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_proc: bool
) -> None:
    monkeypatch.setattr("promgun.collect.slot_owners.HAS_PROC", has_proc)
    if not has_proc:
        use_psutil(monkeypatch)
    with ExitStack() as stack:
        ours, nobodys, reused = (stack.enter_context(opened(tmp_path, Role.WORKER)).store for _ in range(3))
        for store in (ours, nobodys, reused):
            store.own_slot()
        nobodys.board.cells[Cell.PID] = 0
        reused.board.cells[Cell.PROCESS_START] += 1
        found = owners_of(tmp_path, process_figures)
    assert [(owner.slot, owner.alive) for owner in found] == [(1, True), (2, False), (3, False)]
    figures, none, _ = (owner.figures for owner in found)
    assert figures is not None
    assert figures.resident > 1 << 20
    assert none is None


# ---- totals by slot


def user(total: Counts) -> int:
    return total.user


def test_the_next_owner_goes_on_where_the_last_one_ended() -> None:
    rising = SlotCounters()
    assert user(rising.update(1, 100, FIGURES._replace(user=1000), Counts())) == 1000
    assert user(rising.update(1, 100, FIGURES._replace(user=1200), Counts())) == 1200
    assert user(rising.update(1, 0, None, Counts())) == 1200
    assert user(rising.update(1, 200, FIGURES._replace(user=50), Counts())) == 1250
    assert user(rising.update(1, 300, FIGURES._replace(user=25), Counts())) == 1275


def test_what_the_master_books_is_not_counted_twice() -> None:
    """The master learns what a worker used from wait4, sooner or later than we see it gone."""
    sooner, later = SlotCounters(), SlotCounters()
    for rising in (sooner, later):
        rising.update(1, 100, FIGURES._replace(user=1000), Counts())
    recorded = Counts(user=1050)
    assert user(sooner.update(1, 0, None, recorded)) == 1050
    assert user(sooner.update(1, 200, FIGURES._replace(user=100), recorded)) == 1150
    assert user(later.update(1, 200, FIGURES._replace(user=100), Counts())) == 1100
    assert user(later.update(1, 200, FIGURES._replace(user=100), recorded)) == 1150
    assert user(later.update(1, 200, FIGURES._replace(user=200), recorded)) == 1250


def test_a_reader_that_begins_late_takes_what_is_recorded() -> None:
    assert user(SlotCounters().update(1, 200, FIGURES._replace(user=100), Counts(user=5000))) == 5100


def test_totals_never_sink() -> None:
    rising = SlotCounters()
    last = Counts()
    story = [
        (100, 500, 0),
        (100, 900, 0),
        (0, None, 0),
        (200, 10, 0),
        (200, 20, 950),
        (0, None, 950),
        (0, None, 980),
        (300, 0, 980),
    ]
    for pid, now, recorded in story:
        figures = None if now is None else FIGURES._replace(user=now, system=now, voluntary=now)
        totals = rising.update(1, pid, figures, Counts(user=recorded, system=recorded))
        assert all(new >= old for new, old in zip(totals, last, strict=True))
        last = totals
    assert last.user == 980


def test_slots_are_apart() -> None:
    rising = SlotCounters()
    rising.update(1, 100, FIGURES._replace(user=1000), Counts())
    assert user(rising.update(2, 101, FIGURES._replace(user=100), Counts())) == 100


def test_what_is_not_told_is_nothing() -> None:
    assert SlotCounters().update(1, 0, None, Counts()) == Counts()


def test_other_figures_are_kept_from_sinking_too() -> None:
    rising = SlotCounters()
    assert [rising.clamp(1, "busy", value) for value in (100, 500, -700, 600)] == [100, 500, 500, 600]
    assert rising.clamp(2, "busy", 50) == 50


def test_a_new_reader_shows_no_less_than_an_old_one_by_a_rounding_error() -> None:
    """Two metrics processes answer on one address during an upgrade, and one that died is replaced."""
    assert offenders(range(50), _read_twice) == {}


def _read_twice(seed: int) -> None:
    dice = random.Random(seed)
    old = SlotCounters()
    tick, recorded, now, pid = 10_000_000, 0, 0, 1
    for _ in range(60):
        if dice.random() < 0.3:
            recorded, now, pid = recorded + now, tick * dice.randrange(3), pid + 1
        else:
            now += tick * dice.randrange(4)
        shown = [
            user(one.update(1, pid, FIGURES._replace(user=now), Counts(user=recorded))) for one in (old, SlotCounters())
        ]
        assert shown[0] / 1e9 == shown[1] / 1e9 == (recorded + now) / 1e9
