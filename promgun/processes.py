"""Figures of processes, read from outside with psutil when somebody asks, never in the request path."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

#: What grows for as long as a process lives, and must go on growing when the next owner of a slot begins at 0.
COUNTERS = ("user", "system", "voluntary", "involuntary", "cpu_wait")


@dataclass(frozen=True, slots=True)
class Figures:
    """A process at one moment: bytes, seconds, counts. ``None`` is what the kernel would not tell."""

    resident: int
    unique: int | None
    user: float
    system: float
    fds: int | None
    threads: int
    voluntary: int
    involuntary: int
    cpu_wait: float | None


class ProcessFigures:
    """Reads figures by pid, keeping psutil's objects between readings."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}

    def read(self, pid: int) -> Figures | None:
        """Return the figures of a process, ``None`` when it is gone."""
        try:
            process = self._processes.get(pid)
            if process is None or not process.is_running():
                process = self._processes[pid] = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                switches = process.num_ctx_switches()
                return Figures(
                    resident=process.memory_info().rss,
                    unique=_unique(process),
                    user=times.user,
                    system=times.system,
                    fds=_fds(process),
                    threads=process.num_threads(),
                    voluntary=switches.voluntary,
                    involuntary=switches.involuntary,
                    cpu_wait=_cpu_wait(pid),
                )
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            self._processes.pop(pid, None)
            return None

    def keep(self, pids: Iterable[int]) -> None:
        """Forget every process but these."""
        wanted = set(pids)
        for pid in self._processes.keys() - wanted:
            del self._processes[pid]


def _unique(process: psutil.Process) -> int | None:
    # A process that changed user is not dumpable, and its maps are closed to others of that user (proc(5)).
    try:
        full = process.memory_full_info()
    except psutil.AccessDenied:
        return None
    return int(full.uss)


def _cpu_wait(pid: int) -> float | None:
    """Return the seconds that the threads of a process were ready but given no CPU; ``None`` where nobody counts.

    Second field of /proc/PID/task/TID/schedstat, nanoseconds (Linux, Documentation/scheduler/sched-stats).
    """
    total = 0
    try:
        for task in os.scandir(f"/proc/{pid}/task"):
            with open(f"{task.path}/schedstat", "rb") as schedstat:
                total += int(schedstat.read().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return total / 1e9


def _fds(process: psutil.Process) -> int | None:
    try:
        return int(process.num_fds())
    except psutil.AccessDenied:
        return None


class RisingFigures:
    """Makes figures that begin at 0 with every process rise for ever by slot: what the last owner had is added."""

    def __init__(self) -> None:
        self._pids: dict[int, int] = {}
        self._booked: dict[tuple[int, str], float] = {}
        self._unbooked: dict[tuple[int, str], float] = {}
        self._last: dict[tuple[int, str], float] = {}

    def update(self, slot: int, pid: int, figures: Figures | None, lasting: dict[str, float]) -> dict[str, float]:
        """Return the totals of a slot; ``lasting`` is what the master booked for owners that are gone.

        What nobody books at the end of a process, or not yet, is carried on from what was last seen of it.
        """
        changed = self._pids.get(slot) != pid
        self._pids[slot] = pid
        totals = {}
        for name in COUNTERS:
            key = slot, name
            booked = lasting.get(name, 0.0)
            unbooked = max(0.0, self._unbooked.get(key, 0.0) - (booked - self._booked.get(key, booked)))
            if changed:
                unbooked = max(unbooked, self._last.get(key, 0.0) - booked)
            self._booked[key], self._unbooked[key] = booked, unbooked
            now = (getattr(figures, name) if figures is not None else 0.0) or 0.0
            totals[name] = self.clamp(slot, name, booked + unbooked + now)
        return totals

    def clamp(self, slot: int, name: str, value: float) -> float:
        """Return ``value``, or the last one of that name where it was higher: between a death and the master's booking
        of it, and while a board was copied in the middle of a change.
        """
        value = self._last[slot, name] = max(value, self._last.get((slot, name), 0.0))
        return value
