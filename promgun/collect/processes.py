"""Figures of processes, read by another process when a page or status is made, never by a worker in a request."""

from __future__ import annotations

import os
from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from promgun.system.procfs import HAS_PROC, Usage

if TYPE_CHECKING or not HAS_PROC:
    # Elsewhere than on Linux: to import it takes 12 ms. Not later, because the user that the process changes to may not
    # be able to read it.
    import psutil

_NS = 1_000_000_000


class Figures(NamedTuple):
    """A process at one moment: bytes, nanoseconds, counts. ``None`` is what the kernel would not tell."""

    resident: int
    user: int
    system: int
    fds: int | None
    threads: int
    voluntary: int
    involuntary: int


def process_figures(pid: int, usage: Usage | None, *, whole: bool = True) -> Figures | None:
    """Return the figures of a process, ``None`` when it is gone; ``usage`` is read from /proc, if there is one.

    A zombie still has its CPU times. Without ``whole`` descriptors are ``None``: to count them costs as much as all
    else.
    """
    if usage is None:
        return None if HAS_PROC else _ask(pid)
    fds = _fds(pid) if whole and not usage.ended else None
    return Figures(usage.resident, usage.user, usage.system, fds, usage.threads, usage.voluntary, usage.involuntary)


def _ask(pid: int) -> Figures | None:
    """Return the figures where only psutil knows them: on systems without /proc."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            switches = process.num_ctx_switches()
            return Figures(
                resident=process.memory_info().rss,
                user=round(times.user * _NS),
                system=round(times.system * _NS),
                fds=process.num_fds(),
                threads=process.num_threads(),
                voluntary=switches.voluntary,
                involuntary=switches.involuntary,
            )
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _fds(pid: int) -> int | None:
    path = f"/proc/{pid}/fd"
    try:
        # Since Linux 6.2 its size is the number of descriptors (fs/proc/fd.c); before it is 0.
        return os.stat(path).st_size or len(os.listdir(path))
    except OSError:
        return None


class Counts(NamedTuple):
    """What a process has used: nanoseconds of CPU, counts of context switches. It is shown by slot, so it must go on
    when the next owner of the slot begins at 0.
    """

    user: int = 0
    system: int = 0
    voluntary: int = 0
    involuntary: int = 0


_NOTHING = Counts()


@dataclass(slots=True)
class _Slot:
    """What is known of a slot: its owner; what the master had recorded of earlier ones, and what they used besides; the
    sum of both; the totals that were shown last.
    """

    pid: int
    recorded: tuple[int, ...]
    unrecorded: Counts
    base: tuple[int, ...]
    shown: Counts


class SlotCounters:
    """Makes per-process counters monotonic per slot: what earlier owners used is added.

    All are whole numbers (nanoseconds, counts): sums of floats differ by rounding errors from reader to reader, and
    Prometheus takes any decrease for a reset.
    """

    def __init__(self) -> None:
        self._slots: dict[int, _Slot] = {}
        self._highest: dict[tuple[int, str], int] = {}

    def update(self, slot: int, pid: int, figures: Figures | None, by_master: tuple[int, ...]) -> Counts:
        """Return the totals of a slot; ``by_master`` is what the master recorded when it reaped earlier owners.

        What it has not recorded, or not yet, when a process ends is taken from the last figures that were read of that
        process. The totals are never less than the last time.
        """
        known = self._slots.get(slot)
        if known is None:
            known = self._slots[slot] = _Slot(pid, by_master, _NOTHING, by_master, _NOTHING)
        elif known.pid != pid or known.recorded != by_master:
            _begin(known, pid, by_master)
        user, system, voluntary, involuntary = known.base
        if figures is not None:
            user += figures.user
            system += figures.system
            voluntary += figures.voluntary
            involuntary += figures.involuntary
        shown = known.shown
        totals = Counts(user, system, voluntary, involuntary)
        if not (user >= shown[0] and system >= shown[1] and voluntary >= shown[2] and involuntary >= shown[3]):
            totals = Counts._make(map(max, totals, shown))
        known.shown = totals
        return totals

    def clamp(self, slot: int, name: str, value: int) -> int:
        """Return ``value``, or the last one of that name where it was higher: between a death and its record by the
        master, and while a board was copied in the middle of a change.
        """
        key = slot, name
        highest = self._highest.get(key, 0)
        if value > highest:
            highest = self._highest[key] = value
        return highest


def _begin(known: _Slot, pid: int, by_master: tuple[int, ...]) -> None:
    """Go on with another owner, or with what the master has recorded meanwhile."""
    unrecorded = [
        max(0, before - (recorded - recorded_before))
        for before, recorded, recorded_before in zip(known.unrecorded, by_master, known.recorded, strict=True)
    ]
    if known.pid != pid:
        unrecorded = [
            max(own, shown - recorded) for own, shown, recorded in zip(unrecorded, known.shown, by_master, strict=True)
        ]
    known.pid, known.recorded, known.unrecorded = pid, by_master, Counts._make(unrecorded)
    known.base = Counts._make(map(add, by_master, unrecorded))
