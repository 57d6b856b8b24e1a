"""Reads how much memory each worker shares with no other process, outside of pages: one worker at a time.

For that number (USS) the kernel walks through all pages of a process, 8 ms for 256 MiB, and a worker that maps memory
meanwhile waits. So it is read by a thread of its own, which lets others run during a walk, only while somebody asks for
pages, and of each worker once in a number of seconds.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promgun.system.procfs import HAS_SMAPS_ROLLUP, unique_memory

if TYPE_CHECKING or not HAS_SMAPS_ROLLUP:
    # Elsewhere than on Linux: to import it takes 12 ms. Not later, because the user that the process changes to may not
    # be able to read it.
    import psutil

#: No two processes are read within this many seconds.
_SHORTEST_PAUSE = 1.0
#: One that a page shows for the first time is not read in this many seconds: the page is sent by then.
_AFTER_PAGE = 0.25
#: Reading stops this many seconds after the last page. With the slowest usual scrapes, one in two minutes, it goes on.
_ASKED_FOR = 150.0


def read_unique(pid: int) -> int | None:
    """Return the bytes that a process shares with no other; ``None`` when the kernel does not tell.

    A process that changed user is not dumpable, and its maps are closed to others of that user (proc(5)).
    """
    if HAS_SMAPS_ROLLUP:
        try:
            return unique_memory(pid)
        except OSError:
            return None
    try:
        return int(psutil.Process(pid).memory_full_info().uss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


@dataclass(slots=True)
class _Process:
    """A process that pages show; ``start`` tells it from another of the same pid."""

    start: int
    read_at: float = -math.inf
    size: int | None = None


class UniqueMemory:
    """The unique memory of some processes, each read at most once in ``seconds``; 0 reads none.

    :meth:`sizes` is for each page. The thread begins with the first one.
    """

    def __init__(
        self,
        seconds: float,
        *,
        read: Callable[[int], int | None] = read_unique,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._read = read
        self._clock = clock
        self._processes: dict[int, _Process] = {}
        self._asked_at = 0.0
        self._read_at = -math.inf
        self._not_before = 0.0
        self._asked = threading.Condition()
        self._thread: threading.Thread | None = None

    def sizes(self, starts: Mapping[int, int]) -> dict[int, int]:
        """Return the bytes of those processes that have been read, by pid; all others are forgotten.

        ``starts`` has the start of each process that the page shows.
        """
        if not self._seconds:
            return {}
        with self._asked:
            now = self._clock()
            known = self._processes
            overdue = not starts.keys() <= known.keys() or now - self._asked_at > _ASKED_FOR
            if overdue and self._not_before <= now:
                self._not_before = now + _AFTER_PAGE
            self._asked_at = now
            self._processes = {
                pid: known[pid] if pid in known and known[pid].start == start else _Process(start)
                for pid, start in starts.items()
            }
            sizes = {pid: process.size for pid, process in self._processes.items() if process.size is not None}
            self._asked.notify()
        return sizes

    def follow(self) -> None:
        """Start the thread, unless it runs or nothing is to be read."""
        if self._seconds and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="promgun-unique-memory", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            pause = self.step()
            with self._asked:
                self._asked.wait(pause)

    def step(self) -> float:
        """Read one process if it is time for one; return the seconds until the next step. No page waits for it."""
        with self._asked:
            now = self._clock()
            if not self._processes or now - self._asked_at > _ASKED_FOR:
                return _ASKED_FOR
            pid, process = min(self._processes.items(), key=lambda item: item[1].read_at)
            at = self._next_at(process)
            if now < at:
                return at - now
            self._read_at = process.read_at = now
        size = self._read(pid)
        with self._asked:
            process.size = size
        return _SHORTEST_PAUSE

    def _next_at(self, process: _Process) -> float:
        """Return when ``process``, whose turn it is, may be read."""
        pause = max(self._seconds / len(self._processes), _SHORTEST_PAUSE)
        return max(self._not_before, self._read_at + pause, process.read_at + self._seconds)
