"""What was counted for each route, over all slots, methods and statuses, under the label that the page shows.

A status asks for it every second, and between two readings most routes have not changed: their totals are the same
object again, which also tells whoever compares two readings that nothing happened.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from operator import add, attrgetter
from typing import NamedTuple

from promgun.metrics.families.requests import REQUEST_CPU_SECONDS, REQUEST_DURATION_SECONDS, REQUESTS
from promgun.store.own_families import Fold
from promgun.store.row_format import RowSchema
from promgun.store.row_total import Numbers, RowTotal

_ROUTE, _STATUS = REQUESTS.labels.index("route"), REQUESTS.labels.index("status")


@dataclass(frozen=True, slots=True)
class RouteTotals:
    """Counters of a route since the start: answered requests, answers 5xx among them, seconds that requests took, and
    seconds of CPU, ``None`` where they are not counted.

    ``counts`` is the number of requests that took at most the bound in seconds, for each of ``bounds``, whose last is
    infinite.
    """

    requests: float
    errors: float
    busy: float
    cpu: float | None
    bounds: tuple[float, ...]
    counts: tuple[float, ...]


class _Route:
    """The rows of one route, their numbers at the last reading, and what these add up to."""

    __slots__ = ("numbers", "rows", "totals")

    def __init__(self) -> None:
        self.rows: list[RowTotal] = []
        self.numbers: list[Numbers] = []
        self.totals = RouteTotals(0.0, 0.0, 0.0, None, (math.inf,), (0.0,))

    def read(self) -> RouteTotals:
        numbers = [row.numbers for row in self.rows]
        # Of a row on a page of the file that did not change they are the same object.
        if numbers != self.numbers:
            self.numbers = numbers
            self.totals = _added(self.rows)
        return self.totals


class RouteSums:
    """Adds up the routes of one store, reading after reading."""

    def __init__(self) -> None:
        self._rows: list[RowTotal] = []
        self._shown: object = None
        self._routes: dict[str, _Route] = {}

    def read(self, totals: Iterable[RowTotal], fold: Fold, shown: object) -> dict[str, RouteTotals]:
        """Return the totals by route. ``fold`` says under which label set each is shown; it decides anew when there are
        other rows, or when ``shown``, the options that it follows, differs from that of the last reading.
        """
        rows = [row for row in totals if REQUESTS.name in row.schema.firsts and row.schema.labels == REQUESTS.labels]
        if shown != self._shown or rows != self._rows:
            self._rows, self._shown = rows, shown
            self._routes = _by_route(rows, fold)
        return {label: route.read() for label, route in self._routes.items()}


def _by_route(rows: Sequence[RowTotal], fold: Fold) -> dict[str, _Route]:
    ordered = sorted(rows, key=attrgetter("birth", "values"))
    folded = fold(REQUESTS.name, REQUESTS.labels, [row.values for row in ordered])
    routes: dict[str, _Route] = {}
    for row in ordered:
        shown = folded.get(row.values)
        label = (row.values if shown is None else shown.values)[_ROUTE]
        routes.setdefault(label, _Route()).rows.append(row)
    return routes


def _added(rows: Iterable[RowTotal]) -> RouteTotals:
    requests = errors = busy = 0.0
    cpu: float | None = None
    by_bounds: dict[tuple[float, ...], Sequence[float]] = {}
    for row in rows:
        numbers, layout = row.numbers, _layout(row.schema)
        answered = numbers[layout.requests]
        requests += answered
        if row.values[_STATUS].startswith("5"):
            errors += answered
        if layout.cpu is not None:
            cpu = (cpu or 0.0) + numbers[layout.cpu]
        if layout.bounds:
            counts = numbers[layout.durations]
            busy += numbers[layout.seconds]
            before = by_bounds.get(layout.bounds)
            by_bounds[layout.bounds] = counts if before is None else tuple(map(add, before, counts))
    bounds, each = _united(by_bounds)
    return RouteTotals(requests, errors, busy, cpu, bounds, tuple(accumulate(each)))


class _Layout(NamedTuple):
    """Where a row has its numbers: requests, CPU if any, the counts by bound of duration, the sum of durations."""

    requests: int
    cpu: int | None
    durations: slice
    seconds: int
    bounds: tuple[float, ...]


@lru_cache(maxsize=256)
def _layout(schema: RowSchema) -> _Layout:
    firsts = schema.firsts
    requests, cpu = firsts[REQUESTS.name], firsts.get(REQUEST_CPU_SECONDS.name)
    for group in schema.groups:
        if group.family == REQUEST_DURATION_SECONDS.name and group.bounds:
            first = firsts[group.family]
            end = first + group.counts
            return _Layout(requests, cpu, slice(first, end), end, group.bounds)
    return _Layout(requests, cpu, slice(0, 0), 0, ())


def _united(by_bounds: dict[tuple[float, ...], Sequence[float]]) -> tuple[tuple[float, ...], Sequence[float]]:
    """Return one histogram's bounds and counts: a reload may have given the rows of a route other buckets."""
    if len(by_bounds) == 1:
        ((bounds, counts),) = by_bounds.items()
        return (*bounds, math.inf), counts
    united: dict[float, float] = {math.inf: 0.0}
    for bounds, counts in by_bounds.items():
        for bound, count in zip((*bounds, math.inf), counts, strict=True):
            united[bound] = united.get(bound, 0.0) + count
    return tuple(sorted(united)), [united[bound] for bound in sorted(united)]
