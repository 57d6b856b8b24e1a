"""Garbage collections of a worker, counted on its board: cells only, because a collection may interrupt anything."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from time import monotonic_ns
from typing import Any

from promgun.store.board import Cell

_FIRST = int(Cell.GC_COLLECTIONS_0)
_PAUSE = int(Cell.GC_PAUSE)


class CollectionCounter:
    """A callback for ``gc.callbacks``."""

    def __init__(self, cells: Any, clock: Callable[[], int] = monotonic_ns) -> None:
        self.cells = cells
        self._clock = clock
        self._start = 0

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """Note the start of a collection; count it and its time at the stop."""
        if phase == "start":
            self._start = self._clock()
        elif self._start:
            pause = self._clock() - self._start
            self.cells[_PAUSE] += pause
            generation = _FIRST + info["generation"]
            self.cells[generation] += 1


def count_collections(cells: Any) -> CollectionCounter:
    """Count this process's collections on ``cells``, in place of whatever counted them before a fork."""
    gc.callbacks[:] = [callback for callback in gc.callbacks if not isinstance(callback, CollectionCounter)]
    counter = CollectionCounter(cells)
    gc.callbacks.append(counter)
    return counter
