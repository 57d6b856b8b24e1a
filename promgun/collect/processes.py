"""Figures of processes, read by another process when a page or status is made, never by a worker in a request."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promgun.system.procfs import HAS_SMAPS_ROLLUP, Usage, unique_memory

if TYPE_CHECKING or not HAS_SMAPS_ROLLUP:
    # Elsewhere than on Linux: to import it takes 12 ms. Not later, because the user that the process changes to may not
    # be able to read it.
    import psutil

_NS = 1_000_000_000

#: Counters of a process that are shown by slot: they must go on when the next owner of the slot begins at 0.
COUNTERS = ("user", "system", "voluntary", "involuntary")


@dataclass(frozen=True, slots=True)
class Figures:
    """A process at one moment: bytes, nanoseconds, counts. ``None`` is what the kernel would not tell."""

    resident: int
    unique: int | None
    user: int
    system: int
    fds: int | None
    threads: int
    voluntary: int
    involuntary: int


class ProcessFigures:
    """Reads figures by pid, and keeps unique memory, which takes long to read, for ``unique_age`` seconds.

    For unique memory (USS) the kernel walks through all pages of a process, and holds it up meanwhile.
    """

    unique_age = 10.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._unique: dict[int, _Unique] = {}

    def read(self, pid: int, usage: Usage | None, *, whole: bool = True) -> Figures | None:
        """Return the figures of a process, ``None`` when it is gone; ``usage`` is read from /proc, if there is one.

        A zombie still has its CPU times. Without ``whole`` unique memory and descriptors are ``None``: with /proc they
        cost more than all the rest.
        """
        if usage is None:
            return None if HAS_SMAPS_ROLLUP else self._ask(pid)
        whole = whole and not usage.ended
        return Figures(
            resident=usage.resident,
            unique=self._unique_of(pid, usage.start) if whole else None,
            user=usage.user,
            system=usage.system,
            fds=_fds(pid) if whole else None,
            threads=usage.threads,
            voluntary=usage.voluntary,
            involuntary=usage.involuntary,
        )

    def _ask(self, pid: int) -> Figures | None:
        """Return the figures where only psutil knows them: on systems without /proc."""
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                switches = process.num_ctx_switches()
                return Figures(
                    resident=process.memory_info().rss,
                    unique=self._unique_of(pid, process.create_time()),
                    user=round(times.user * _NS),
                    system=round(times.system * _NS),
                    fds=process.num_fds(),
                    threads=process.num_threads(),
                    voluntary=switches.voluntary,
                    involuntary=switches.involuntary,
                )
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None

    def _unique_of(self, pid: int, start: float) -> int | None:
        known = self._unique.get(pid)
        now = self._clock()
        if known is None or known.start != start or now - known.read_at >= self.unique_age:
            known = self._unique[pid] = _Unique(start, now, _unique(pid))
        return known.size

    def keep(self, pids: Iterable[int]) -> None:
        """Forget every process but these."""
        wanted = set(pids)
        for pid in self._unique.keys() - wanted:
            del self._unique[pid]


@dataclass(frozen=True, slots=True)
class _Unique:
    """The memory that a process shared with nobody at one moment; ``start`` tells it from another of the same pid."""

    start: float
    read_at: float
    size: int | None


def _unique(pid: int) -> int | None:
    # A process that changed user is not dumpable, and its maps are closed to others of that user (proc(5)).
    if HAS_SMAPS_ROLLUP:
        try:
            return unique_memory(pid)
        except OSError:
            return None
    try:
        return int(psutil.Process(pid).memory_full_info().uss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _fds(pid: int) -> int | None:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None


class SlotCounters:
    """Makes per-process counters monotonic per slot: what earlier owners used is added.

    All are whole numbers (nanoseconds, counts): sums of floats differ by rounding errors from reader to reader, and
    Prometheus takes any decrease for a reset.
    """

    def __init__(self) -> None:
        self._pids: dict[int, int] = {}
        self._recorded: dict[int, dict[str, int]] = {}
        self._unrecorded: dict[int, dict[str, int]] = {}
        self._last: dict[int, dict[str, int]] = {}

    def update(self, slot: int, pid: int, figures: Figures | None, by_master: dict[str, int]) -> dict[str, int]:
        """Return the totals of a slot; ``by_master`` is what the master recorded when it reaped earlier owners.

        What it has not recorded, or not yet, when a process ends is taken from the last figures that were read of that
        process.
        """
        changed = self._pids.get(slot) != pid
        self._pids[slot] = pid
        last = self._last.setdefault(slot, {})
        recorded_before = self._recorded.setdefault(slot, {})
        unrecorded_before = self._unrecorded.setdefault(slot, {})
        totals = {}
        for name in COUNTERS:
            recorded = by_master.get(name, 0)
            unrecorded = max(0, unrecorded_before.get(name, 0) - (recorded - recorded_before.get(name, recorded)))
            if changed:
                unrecorded = max(unrecorded, last.get(name, 0) - recorded)
            recorded_before[name], unrecorded_before[name] = recorded, unrecorded
            now = getattr(figures, name) if figures is not None else 0
            totals[name] = last[name] = max(recorded + unrecorded + now, last.get(name, 0))
        return totals

    def clamp(self, slot: int, name: str, value: int) -> int:
        """Return ``value``, or the last one of that name where it was higher: between a death and its record by the
        master, and while a board was copied in the middle of a change.
        """
        last = self._last.setdefault(slot, {})
        value = last[name] = max(value, last.get(name, 0))
        return value
