"""Counters of our own families that are not in the request path's hot loop, with the cap on label sets."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from promgun.metrics.families.promgun import LABEL_SETS_FOLDED
from promgun.metrics.label_sets import fold, has_free_labels, has_room
from promgun.metrics.spec import CounterFamily, HistogramFamily, Labels, MetricSpec
from promgun.store.format import go_string, series_key
from promgun.store.process import ProcessStore
from promgun.store.values import Place, has_gil


def counter_key(spec: MetricSpec, values: Sequence[str]) -> str:
    """Return the store's key of one counter series."""
    return series_key(spec.family, spec.name, dict(zip(spec.labels, values, strict=True)), spec.help)


class Counters:
    """Every counter of the catalogue, by family and label values, in the slot of this process."""

    def __init__(self, store: ProcessStore, max_label_sets: int) -> None:
        self._store = store
        self._cap = max_label_sets
        self._places: dict[tuple[MetricSpec, tuple[str, ...]], Place] = {}
        self._known: dict[MetricSpec, set[str]] = {}
        self._read: set[MetricSpec] = set()
        self._locked = not has_gil()
        store.on_detach(self._detach)

    def _detach(self) -> None:
        self._places.clear()
        self._known.clear()
        self._read.clear()

    def inc(self, family: CounterFamily[Labels], values: Labels, amount: float = 1.0) -> None:
        """Add ``amount`` to a series; label values stand in the order of the family's labels."""
        place = self._places.get((family, values))
        if place is None:
            place = self._place(family, values)
        cells, index = place
        if self._locked:
            with self._store.lock:
                cells[index] += amount
            return
        cells[index] += amount

    def fold(self, spec: MetricSpec, values: tuple[str, ...]) -> tuple[str, ...]:
        """Return ``values``, or the folded set when they are new and the family holds as many sets as it may.

        Sets that an earlier owner of the slot made count as well. Only free labels are folded: the others are bounded
        by themselves.
        """
        if not has_free_labels(spec.labels):
            return values
        key = counter_key(spec, values)
        with self._store.lock:
            known = self._sets_of(spec)
            if key in known or has_room(len(known), self._cap):
                known.add(key)
                return values
        self.inc(LABEL_SETS_FOLDED, (spec.name,))
        return fold(spec.labels, values)

    def _sets_of(self, spec: MetricSpec) -> set[str]:
        """Return the keys that the family holds; those in the file are read once it can be had."""
        known = self._known.setdefault(spec, set())
        if spec not in self._read:
            with contextlib.suppress(OSError):
                start = f'["{spec.family}", '
                known.update(key for key in self._store.keys("counter") if key.startswith(start))
                self._read.add(spec)
        return known

    def _place(self, spec: MetricSpec, values: tuple[str, ...]) -> Place:
        folded = self.fold(spec, values)
        return self._places.get((spec, folded)) or self._find(spec, folded)

    def _find(self, spec: MetricSpec, values: tuple[str, ...]) -> Place:
        identity = (spec, values)

        def on_space(cells: Any, indexes: Sequence[int]) -> None:
            self._places[identity] = (cells, indexes[0])

        with self._store.lock:
            cells, indexes = self._store.allocate("counter", lambda: (counter_key(spec, values),), on_space)
            place = self._places[identity] = (cells, indexes[0])
        return place


def histogram_keys(spec: HistogramFamily[Any], values: Sequence[str], bounds: Sequence[float]) -> list[str]:
    """Return the keys of one histogram series: each bucket with ``+Inf`` last, then the sum.

    Bounds are spelled as prometheus_client spells them (``utils.floatToGoString``).
    """
    labels = dict(zip(spec.labels, values, strict=True))
    keys = [
        series_key(spec.name, spec.bucket, {**labels, "le": le}, spec.help) for le in [*map(go_string, bounds), "+Inf"]
    ]
    return [*keys, series_key(spec.name, f"{spec.name}_sum", labels, spec.help)]
