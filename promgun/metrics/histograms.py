"""Histograms of our own families with closed label sets: queue waits and boot times."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from promgun.metrics.catalog import BY_NAME
from promgun.metrics.counters import histogram_keys
from promgun.store.process import ProcessStore

Row = tuple[Any, Sequence[int]]


class Histograms:
    """Every histogram of the catalogue that is not counted by the recorder, in the slot of this process."""

    def __init__(self, store: ProcessStore, bounds: Sequence[float]) -> None:
        self._store = store
        self._bounds = tuple(bounds)
        self._rows: dict[tuple[str, tuple[str, ...]], Row] = {}
        self._homeless: list[tuple[str, tuple[str, ...]]] = []
        store.on_detach(self._detach)

    def _detach(self) -> None:
        self._rows = {}
        self._homeless = []

    def observe(self, name: str, values: tuple[str, ...], amount: float) -> None:
        """Count one observation; label values stand in the catalogue's order."""
        row = self._rows.get((name, values))
        if row is None:
            row = self.touch(name, values)
        cells, indexes = row
        bucket = indexes[bisect_left(self._bounds, amount)]
        cells[bucket] += 1.0
        total = indexes[-1]
        cells[total] += amount

    def touch(self, name: str, values: tuple[str, ...] = ()) -> Row:
        """Make a series, so that it is there with 0."""
        try:
            row: Row = self._store.places("histogram", histogram_keys(BY_NAME[name], values, self._bounds))
        except OSError as error:
            self._store.count_error(error)
            self._homeless.append((name, values))
            size = len(self._bounds) + 2
            row = array("d", bytes(8 * size)), range(size)
        self._rows[name, values] = row
        return row

    def retry(self) -> None:
        """Move what waits in private memory into the file, if it can be had now."""
        waiting, self._homeless = self._homeless, []
        for identity in waiting:
            old, at = self._rows[identity]
            cells, indexes = self.touch(*identity)
            for index, private in zip(indexes, at, strict=True):
                cells[index] += old[private]
