"""A family of the application as numbers in the order of its lines; samples are made for whoever asks for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from promgun.collect.families import build_family
from promgun.store.series import Series

_value_of: Callable[[Series], float] = attrgetter("value")


class FamilyLayout:
    """What a family has on every page as long as its series stay the same ones; raises ``ValueError`` for a name that
    no metric can have.
    """

    def __init__(self, name: str, series: Sequence[Series]) -> None:
        self.built = build_family(name, list(series))
        self._series = list(series)
        self._name = name
        self._first = series[0]
        self._help = self._first.documentation
        self._groups = _groups_of(series) if self.built.type == "histogram" else []
        # Else some samples are made of several series.
        self._is_plain = bool(self._groups) or (
            self.built.type != "histogram" and len(self.built.samples) == len(self._series)
        )
        #: whether a bucket's bound is below 0
        self.has_negative_bound = any(item.upper is not None and item.upper < 0 for item in series)

    @property
    def is_current(self) -> bool:
        """Whether the family still has the same help text; a reload may have brought another."""
        return self._help == self._first.documentation

    def family(self) -> Metric:
        """Return the family with the values that its series have now."""
        if not self._is_plain:
            return build_family(self._name, self._series)
        return SeriesFamily(self, self._values())

    def _values(self) -> list[float]:
        if not self._groups:
            return list(map(_value_of, self._series))
        values: list[float] = []
        for buckets, total in self._groups:
            counts = list(accumulate(map(_value_of, buckets), initial=0.0))
            values += counts[1:]
            values.append(counts[-1])
            values.append(0.0 + total.value)
        return values


def _groups_of(series: Sequence[Series]) -> list[tuple[list[Series], Series]]:
    """Return the buckets of each label set, by bound, and its sum; nothing if any has too few or too many of them."""
    groups: dict[object, tuple[list[Series], list[Series]]] = {}
    for item in series:
        buckets, sums = groups.setdefault(item.group, ([], []))
        (sums if item.upper is None else buckets).append(item)
    found = []
    for buckets, sums in groups.values():
        bounds = sorted(item.upper for item in buckets if item.upper is not None)
        if len(sums) != 1 or not bounds or bounds[-1] != math.inf or len(set(bounds)) < len(bounds):
            return []
        if any(map(math.isnan, bounds)):
            return []
        found.append((sorted(buckets, key=lambda item: item.upper or 0.0), sums[0]))
    return found


class Layout(Protocol):
    """What a family has on every page: ``built`` has its samples, in the order of the lines, with any values."""

    built: Metric
    has_negative_bound: bool


class SeriesFamily(Metric):
    """A family as its layout and its numbers.

    ``layout`` is the same object as long as only ``values`` change between pages; it is ``None`` once a caller has put
    other samples in their place.
    """

    def __init__(self, layout: Layout, values: Sequence[float]) -> None:
        built = layout.built
        # before the base class, which sets samples
        self.layout: Layout | None = None
        super().__init__(built.name, built.documentation, built.type, built.unit)
        self.layout = layout
        self.values = values

    @property
    def samples(self) -> list[Sample]:
        """Every sample, in the order of the lines, made anew at each call."""
        if self.layout is None:
            return self._samples
        return [
            Sample(sample.name, dict(sample.labels), value)
            for sample, value in zip(self.layout.built.samples, self.values, strict=True)
        ]

    @samples.setter
    def samples(self, samples: list[Sample]) -> None:
        self.layout = None
        self._samples = samples
