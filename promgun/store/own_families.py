"""Makes our own families from rows: the numbers of each label set, those of folded sets in the set that has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import add, attrgetter, itemgetter
from typing import NamedTuple

from promgun.store.format import go_string
from promgun.store.row_format import RowSchema
from promgun.store.row_total import Numbers, RowTotal

Values = tuple[str, ...]
Bounds = tuple[float, ...]


class Folded(NamedTuple):
    """The label set that another is counted under; ``at_page`` is false where a worker has folded it before."""

    values: Values
    at_page: bool


#: Given a family, its label names and its label sets in the order of their births, returns those that are counted under
#: another set, with that set.
Fold = Callable[[str, Sequence[str], list[Values]], Mapping[Values, Folded]]


#: One family by label set: the bounds of its buckets (none for a counter), and its numbers, which are the counter, or
#: each bucket (not cumulative), ``+Inf`` and the sum.
Rows = dict[Values, tuple[Bounds, Numbers]]


#: The name of a family, its labels, sorted, and whether it is a histogram.
FamilyKey = tuple[str, tuple[str, ...], bool]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Place:
    """Where a row has the label values and the numbers of one of its families."""

    key: FamilyKey
    values: Callable[[Values], Values]
    cells: slice
    bounds: Bounds


class OwnFamilies:
    """Our families in one reading; another version of promgun may have had other labels, or another kind."""

    def __init__(self) -> None:
        self._found: dict[FamilyKey, Rows] = {}
        #: by family, how often something was counted in rows that are folded here
        self.folded: dict[str, float] = {}

    def rows_of(self, name: str, labels: Sequence[str], *, histogram: bool = False) -> Rows:
        """Return the numbers of a family with these labels; the values of a label set are in the order of the names."""
        return self._found.get((name, tuple(sorted(labels)), histogram), {})

    def __iter__(self) -> Iterator[FamilyKey]:
        return iter(self._found)

    def add_rows(self, totals: Iterable[RowTotal], fold: Fold) -> None:
        """Add all rows; the numbers of a folded row are added to the row that it is folded into."""
        # Another configuration's buckets make another schema of the same families, which have one cap together.
        by_family: dict[tuple[str, tuple[str, ...]], list[RowTotal]] = {}
        for schema, rows in groupby(totals, attrgetter("schema")):
            by_family.setdefault((schema.groups[0].family, schema.labels), []).extend(rows)
        for together in by_family.values():
            together.sort(key=attrgetter("birth", "values"))
            schema = together[0].schema
            folded = fold(schema.groups[0].family, schema.labels, [row.values for row in together])
            for row in together:
                shown = folded.get(row.values)
                if shown is not None and shown.at_page:
                    self._count_folded(row)
                self._add_row(row, row.values if shown is None else shown.values)

    def _add_row(self, row: RowTotal, values: Values) -> None:
        if row.shown is None or row.shown_of is not row.numbers or row.shown[0] != values:
            row.shown = values, _parts(row, values)
            row.shown_of = row.numbers
        for key, own, ours in row.shown[1]:
            rows = self._found.get(key)
            if rows is None:
                rows = self._found[key] = {}
            present = rows.get(own)
            rows[own] = ours if present is None else _united(present, ours)

    def _count_folded(self, row: RowTotal) -> None:
        for group in row.schema.groups:
            first = row.schema.firsts[group.family]
            count = sum(row.numbers[first : first + group.counts])
            self.folded[group.family] = self.folded.get(group.family, 0.0) + count


def _parts(row: RowTotal, values: Values) -> list[tuple[FamilyKey, Values, tuple[Bounds, Numbers]]]:
    """Return what each family of a row has of it, under the label set ``values``."""
    numbers = row.numbers
    return [(place.key, place.values(values), (place.bounds, numbers[place.cells])) for place in _places(row.schema)]


@lru_cache(maxsize=256)
def _places(schema: RowSchema) -> tuple[_Place, ...]:
    places = []
    begins: dict[str, int] = {}
    end = 0
    for group in schema.groups:
        # Not by name: what a damaged file has may name one family twice.
        begin = begins[group.family] = begins[group.same_as] if group.same_as else end
        end += group.size
        names = tuple(sorted(group.labels))
        values = _picker([schema.labels.index(name) for name in names])
        key = group.family, names, bool(group.bounds)
        places.append(_Place(key, values, slice(begin, begin + group.shown), group.bounds))
    return tuple(places)


def _picker(indexes: list[int]) -> Callable[[Values], Values]:
    if len(indexes) > 1:
        return itemgetter(*indexes)
    return itemgetter(slice(indexes[0], indexes[0] + 1) if indexes else slice(0, 0))


def _united(one: tuple[Bounds, Numbers], other: tuple[Bounds, Numbers]) -> tuple[Bounds, Numbers]:
    """Return the sum of two; of histograms that a reload gave other buckets, with the bounds of both."""
    if one[0] == other[0]:
        return one[0], tuple(map(add, one[1], other[1]))
    counts: dict[float, float] = {}
    for bounds, numbers in (one, other):
        for bound, number in zip((*bounds, math.inf), numbers[:-1], strict=True):
            counts[bound] = counts.get(bound, 0.0) + number
    bounds = tuple(sorted(counts))
    return bounds[:-1], (*(counts[bound] for bound in bounds), one[1][-1] + other[1][-1])


def sum_by(totals: Iterable[RowTotal], family: str, label: str) -> dict[str, float]:
    """Return the sums of one of our own families by the values of a label.

    For ``le`` these are the buckets of a histogram, not cumulative.
    """
    sums: dict[str, float] = {}
    # Rows of a schema are consecutive, so what depends on the schema alone is looked up once.
    for schema, rows in groupby(totals, attrgetter("schema")):
        first = schema.firsts.get(family)
        if first is None:
            continue
        if label == "le":
            bounds = next(group.bounds for group in schema.groups if group.family == family)
            _add_buckets(sums, bucket_texts(bounds), [row.numbers[first : first + len(bounds) + 1] for row in rows])
            continue
        index = schema.labels.index(label)
        for row in rows:
            sums[row.values[index]] = sums.get(row.values[index], 0.0) + row.numbers[first]
    return sums


def sum_by_slot(totals: Iterable[RowTotal], by_slot: Mapping[int, float], added: str) -> dict[str, float]:
    """Return what was counted by slot, by its number as text, with what masters counted for workers of the slot that
    had ended: the family ``added``, by ``worker_id``.
    """
    sums = sum_by(totals, added, "worker_id")
    for slot, count in by_slot.items():
        if slot >= 0:
            sums[str(slot)] = sums.get(str(slot), 0.0) + count
    return sums


def _add_buckets(sums: dict[str, float], texts: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    counts = rows[0] if len(rows) == 1 else list(map(sum, zip(*rows, strict=True)))
    if not sums:
        sums.update(zip(texts, counts, strict=True))
        return
    for text, count in zip(texts, counts, strict=True):
        sums[text] = sums.get(text, 0.0) + count


@lru_cache(maxsize=256)
def bucket_texts(bounds: tuple[float, ...]) -> tuple[str, ...]:
    """Return the values of ``le`` for ``bounds``, which do not contain the infinite one."""
    return tuple(map(go_string, (*bounds, math.inf)))
