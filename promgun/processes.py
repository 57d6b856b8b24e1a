"""Figures of processes, read from outside with psutil when somebody asks, never in the request path."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from promgun.store.board import BoardView, Cell, is_alive
from promgun.store.slots import read_board_of, read_boards
from promgun.store.usage import read_usage

_NS = 1e9

#: What grows for as long as a process lives, and must go on growing when the next owner of a slot begins at 0.
COUNTERS = ("user", "system", "voluntary", "involuntary")


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
                )
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            self._processes.pop(pid, None)
            return None

    def keep(self, pids: Iterable[int]) -> None:
        """Forget every process but these."""
        wanted = set(pids)
        for pid in self._processes.keys() - wanted:
            del self._processes[pid]


def figures_of_owner(view: BoardView, live: Callable[[int], Figures | None]) -> Figures | None:
    """Return the figures of a board's owner: by ``live`` while it runs, what it used while it waits to be reaped.

    ``None`` when there is no owner, and when it went since the board was copied: then a new copy tells.
    """
    usage = read_usage(view[Cell.PID]) if view[Cell.PID] > 0 else None
    if usage is None or usage.start != view[Cell.PROCESS_START]:
        return None
    return live(view[Cell.PID]) or Figures(
        resident=0,
        unique=None,
        user=usage.user / _NS,
        system=usage.system / _NS,
        fds=None,
        threads=0,
        voluntary=usage.voluntary,
        involuntary=usage.involuntary,
    )


def boards_with_figures(
    store: Path, live: Callable[[int], Figures | None]
) -> list[tuple[BoardView, bool, Figures | None]]:
    """Return the boards of a store, whether their owners live, and their figures, all of one moment.

    A worker that went between the copy of its board and the look at its process is looked up again: its master books
    what it used before it is reaped.
    """
    found = []
    for view, alive in read_boards(store):
        figures = figures_of_owner(view, live)
        if figures is None and view[Cell.PID] > 0 and view[Cell.WORKED]:
            again = read_board_of(store, view.slot)
            if again is not None and again[Cell.PID] != view[Cell.PID]:
                found.append((again, is_alive(again), figures_of_owner(again, live)))
                continue
        found.append((view, alive, figures))
    return found


def _unique(process: psutil.Process) -> int | None:
    # A process that changed user is not dumpable, and its maps are closed to others of that user (proc(5)).
    try:
        full = process.memory_full_info()
    except psutil.AccessDenied:
        return None
    return int(full.uss)


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
