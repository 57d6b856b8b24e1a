"""Counts a worker's garbage collections and their time in cells of its board.

It writes to cells only: a collection may interrupt any code, including code that holds a lock of the store.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from time import monotonic_ns
from typing import Any

from promgun.store.board import Cell

_FIRST = int(Cell.GC_COLLECTIONS_0)
_PAUSE = int(Cell.GC_PAUSE)


class CollectionCounter:
    """A callback for ``gc.callbacks``; ``clock`` returns nanoseconds."""

    def __init__(self, cells: Any, clock: Callable[[], int] = monotonic_ns) -> None:
        self.cells = cells
        self._clock = clock
        self._start = 0

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """Count a collection, and the time since its start, when it stops."""
        if phase == "start":
            self._start = self._clock()
        elif self._start:
            pause = self._clock() - self._start
            self.cells[_PAUSE] += pause
            generation = _FIRST + info["generation"]
            self.cells[generation] += 1


def count_collections(cells: Any) -> CollectionCounter:
    """Count this process's collections in ``cells``; a counter inherited through a fork is removed."""
    gc.callbacks[:] = [callback for callback in gc.callbacks if not isinstance(callback, CollectionCounter)]
    counter = CollectionCounter(cells)
    gc.callbacks.append(counter)
    return counter
