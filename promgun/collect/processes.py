"""Figures of processes, read by another process when a page or status is made, never by a worker in a request."""

from __future__ import annotations

import os
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from promgun.system.procfs import HAS_PROC, Usage

if TYPE_CHECKING or not HAS_PROC:
    # Elsewhere than on Linux: to import it takes 12 ms. Not later, because the user that the process changes to may not
    # be able to read it.
    import psutil

_NS = 1_000_000_000

#: Counters of a process that are shown by slot: they must go on when the next owner of the slot begins at 0.
COUNTERS = ("user", "system", "voluntary", "involuntary")
_counters_of = attrgetter(*COUNTERS)


@dataclass(frozen=True, slots=True)
class Figures:
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
    return Figures(
        resident=usage.resident,
        user=usage.user,
        system=usage.system,
        fds=_fds(pid) if whole and not usage.ended else None,
        threads=usage.threads,
        voluntary=usage.voluntary,
        involuntary=usage.involuntary,
    )


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


class SlotCounters:
    """Makes per-process counters monotonic per slot: what earlier owners used is added.

    All are whole numbers (nanoseconds, counts): sums of floats differ by rounding errors from reader to reader, and
    Prometheus takes any decrease for a reset.
    """

    def __init__(self) -> None:
        self._pids: dict[int, int] = {}
        #: by slot: what the master had recorded at the last reading, and what is added to the figures of its owner
        self._bases: dict[int, tuple[dict[str, int], list[int]]] = {}
        self._recorded: dict[int, dict[str, int]] = {}
        self._unrecorded: dict[int, dict[str, int]] = {}
        self._last: dict[int, dict[str, int]] = {}

    def update(self, slot: int, pid: int, figures: Figures | None, by_master: dict[str, int]) -> dict[str, int]:
        """Return the totals of a slot; ``by_master`` is what the master recorded when it reaped earlier owners.

        What it has not recorded, or not yet, when a process ends is taken from the last figures that were read of that
        process.
        """
        changed = self._pids.get(slot) != pid
        if not changed and self._bases[slot][0] == by_master:
            return self._rise(slot, figures)
        self._pids[slot] = pid
        last = self._last.setdefault(slot, {})
        recorded_before = self._recorded.setdefault(slot, {})
        unrecorded_before = self._unrecorded.setdefault(slot, {})
        base = []
        for name in COUNTERS:
            recorded = by_master.get(name, 0)
            unrecorded = max(0, unrecorded_before.get(name, 0) - (recorded - recorded_before.get(name, recorded)))
            if changed:
                unrecorded = max(unrecorded, last.get(name, 0) - recorded)
            recorded_before[name], unrecorded_before[name] = recorded, unrecorded
            base.append(recorded + unrecorded)
        self._bases[slot] = by_master, base
        return self._rise(slot, figures)

    def _rise(self, slot: int, figures: Figures | None) -> dict[str, int]:
        """Return the totals: what is added to the owner's figures, and these; never less than the last time."""
        last, base = self._last[slot], self._bases[slot][1]
        now = _counters_of(figures) if figures is not None else (0,) * len(COUNTERS)
        totals = {}
        for name, before, own in zip(COUNTERS, base, now, strict=True):
            totals[name] = last[name] = max(before + own, last.get(name, 0))
        return totals

    def clamp(self, slot: int, name: str, value: int) -> int:
        """Return ``value``, or the last one of that name where it was higher: between a death and its record by the
        master, and while a board was copied in the middle of a change.
        """
        last = self._last.setdefault(slot, {})
        value = last[name] = max(value, last.get(name, 0))
        return value
