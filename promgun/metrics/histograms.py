"""Histograms of our own families that are not counted for every request: queue waits, boot times, websockets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from promgun.metrics.counters import Counters
from promgun.metrics.label_sets import has_free_labels
from promgun.metrics.spec import HistogramFamily, Labels, MetricSpec
from promgun.store.exclusive import has_gil
from promgun.store.process import ProcessStore
from promgun.store.row_format import CellGroup, RowSchema

Row = tuple[Any, Sequence[int]]


class Histograms:
    """All histograms of the catalogue except the recorder's, in the slot of this process."""

    def __init__(self, store: ProcessStore, counters: Counters, bounds: Sequence[float]) -> None:
        self._store = store
        self._counters = counters
        self._bounds = tuple(bounds)
        self._rows: dict[tuple[MetricSpec, tuple[str, ...]], Row] = {}
        self._locked = not has_gil()
        store.on_detach(self._rows.clear)

    def observe(self, family: HistogramFamily[Labels], values: Labels, amount: float) -> None:
        """Count one observation; ``values`` are in the order of the family's labels."""
        row = self._rows.get((family, values))
        if row is None:
            row = self.touch(family, values)
        cells, indexes = row
        bucket = indexes[bisect_left(family.bounds or self._bounds, amount)]
        total = indexes[-1]
        if self._locked:
            with self._store.lock:
                cells[bucket] += 1.0
                cells[total] += amount
            return
        cells[bucket] += 1.0
        cells[total] += amount

    def observer(self, family: HistogramFamily[Labels], values: Labels) -> Callable[[float], None]:
        """Return a function that counts observations of one series, for code that has to be fast."""
        if self._locked:
            return lambda amount: self.observe(family, values, amount)
        identity, rows, bounds = (family, values), self._rows, family.bounds or self._bounds
        touch = self.touch

        def observe(amount: float) -> None:
            cells, indexes = rows.get(identity) or touch(family, values)
            bucket = indexes[bisect_left(bounds, amount) if amount else 0]
            cells[bucket] += 1.0
            if amount:
                total = indexes[-1]
                cells[total] += amount

        return observe

    def touch(self, family: HistogramFamily[Labels], values: Labels) -> Row:
        """Make a series, so that it is shown with 0; beyond the cap, that of the label set it is folded into."""
        schema = RowSchema(family.labels, (CellGroup(family.name, family.labels, family.bounds or self._bounds),))
        # Folded sets are not remembered: a client may choose any number of them.
        shown = self._counters.shown_as(family, schema, values) if has_free_labels(family.labels) else values
        identity: tuple[MetricSpec, tuple[str, ...]] = (family, shown)

        def placed(cells: Any, indexes: Sequence[int]) -> None:
            self._rows[identity] = (cells, indexes)

        with self._store.lock:
            row = self._rows.get(identity)
            if row is None:
                row = self._rows[identity] = self._store.allocate_row(schema, shown, placed)
        return row
