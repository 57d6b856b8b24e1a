"""Counters of our own families, except those of the request path, with the cap on label sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from promgun.metrics.families.promgun import LABEL_SETS_FOLDED
from promgun.metrics.label_sets import LabelCap
from promgun.metrics.spec import CounterFamily, Labels, MetricSpec
from promgun.store.exclusive import has_gil
from promgun.store.pending import Place
from promgun.store.process import ProcessStore
from promgun.store.row_format import CellGroup, RowSchema


class Counters:
    """Every counter of the catalogue, by family and label values, in the slot of this process."""

    def __init__(self, store: ProcessStore, max_label_sets: int) -> None:
        self._store = store
        self._cap = max_label_sets
        self._places: dict[tuple[MetricSpec, tuple[str, ...]], Place] = {}
        self._caps: dict[MetricSpec, LabelCap] = {}
        self._caps_in_memory: dict[MetricSpec, LabelCap] = {}
        self._schemas: dict[MetricSpec, RowSchema] = {}
        self._locked = not has_gil()
        store.on_detach(self._detach)

    def _detach(self) -> None:
        self._places.clear()
        self._caps.clear()
        self._caps_in_memory.clear()

    def inc(self, family: CounterFamily[Labels], values: Labels, amount: float = 1.0) -> None:
        """Add ``amount`` to a series; ``values`` are in the order of the family's labels."""
        place = self._places.get((family, values))
        if place is None:
            place = self._place(family, values)
        cells, index = place
        if self._locked:
            with self._store.lock:
                cells[index] += amount
            return
        cells[index] += amount

    def _place(self, spec: MetricSpec, values: tuple[str, ...]) -> Place:
        schema = self._schemas.get(spec)
        if schema is None:
            schema = self._schemas[spec] = RowSchema(spec.labels, (CellGroup(spec.name, spec.labels),))
        shown = self.shown_as(spec, schema, values)
        return self._places.get((spec, shown)) or self._find(spec, schema, shown)

    def shown_as(self, spec: MetricSpec, schema: RowSchema, values: tuple[str, ...]) -> tuple[str, ...]:
        """Return ``values``, or the set that they are folded into when the family has reached its cap.

        Rows that an earlier owner of the slot made count as well.
        """
        with self._store.lock:
            cap = self._caps.get(spec)
            if cap is None:
                cap = self._make_cap(spec, schema)
            full = cap.held >= cap.cap and cap.is_full_for(values)
            shown = cap.folded(values) if full else cap.shown_as(values)
        if full:
            self.inc(LABEL_SETS_FOLDED, (spec.name,))
        return shown

    def _make_cap(self, spec: MetricSpec, schema: RowSchema) -> LabelCap:
        """Return a cap that knows the rows of the slot, or one in memory while there is no slot."""
        cap = LabelCap(schema.labels, self._cap)
        try:
            known = self._store.row_values(schema)
        except OSError:
            return self._caps_in_memory.setdefault(spec, cap)
        for values in known:
            cap.shown_as(values)
        self._caps_in_memory.pop(spec, None)
        self._caps[spec] = cap
        return cap

    def _find(self, spec: MetricSpec, schema: RowSchema, values: tuple[str, ...]) -> Place:
        identity = (spec, values)

        def placed(cells: Any, indexes: Sequence[int]) -> None:
            self._places[identity] = (cells, indexes[0])

        with self._store.lock:
            cells, indexes = self._store.allocate_row(schema, values, placed)
            place = self._places[identity] = (cells, indexes[0])
        return place
