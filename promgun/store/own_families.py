"""Makes the series of our own families from rows: one for each number of a row, buckets included."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from promgun.store.format import go_string
from promgun.store.row_format import CellGroup, RowSchema
from promgun.store.row_reader import RowTotal
from promgun.store.series import Series


class Folded(NamedTuple):
    """The label set that another is counted under; ``at_page`` is false where a worker has folded it before."""

    values: tuple[str, ...]
    at_page: bool


#: Given a family, its label names and its label sets in the order of their births, returns those that are counted under
#: another set, with that set.
Fold = Callable[[str, Sequence[str], list[tuple[str, ...]]], Mapping[tuple[str, ...], Folded]]
#: The most label sets whose series are kept between readings, sets that no longer exist included.
_MOST_REMEMBERED = 100_000
_Key = tuple[str, tuple[tuple[str, str], ...]]


class OwnSeries:
    """Makes the series of row totals, for each reading; a series is the same object each time."""

    def __init__(self) -> None:
        self._series: dict[_Key, Series] = {}
        self._lists: dict[tuple[int, tuple[str, ...]], list[Series]] = {}
        self._round = 0
        #: by family, how often something was counted in rows that are folded here
        self.folded: dict[str, float] = {}

    def of(self, totals: Iterable[RowTotal], fold: Fold) -> list[Series]:
        """Return the series of all rows; the numbers of a folded row are added to the row that it is folded into."""
        self._round += 1
        if len(self._lists) > _MOST_REMEMBERED:
            self._lists.clear()
            self._series.clear()
        # Another configuration's buckets make another schema of the same families, which have one cap together.
        by_family: dict[tuple[str, tuple[str, ...]], list[RowTotal]] = {}
        for total in totals:
            schema = total.schema
            by_family.setdefault((schema.groups[0].family, schema.labels), []).append(total)
        self.folded = {}
        found: dict[int, Series] = {}
        for rows in by_family.values():
            self._add_rows(rows, fold, found)
        return list(found.values())

    def _add_rows(self, rows: list[RowTotal], fold: Fold, found: dict[int, Series]) -> None:
        rows.sort(key=lambda row: (row.birth, row.values))
        schema = rows[0].schema
        folded = fold(schema.groups[0].family, schema.labels, [row.values for row in rows])
        current = self._round
        for row in rows:
            shown = folded.get(row.values)
            if shown is not None and shown.at_page:
                self._count_folded(row)
            series = self._series_of(row.schema, row.values if shown is None else shown.values)
            for item, value in zip(series, row.numbers, strict=True):
                if item.seen == current:
                    item.value += value
                else:
                    item.seen = current
                    item.value = value
                    found[id(item)] = item

    def _count_folded(self, row: RowTotal) -> None:
        for group in row.schema.groups:
            first = row.schema.firsts[group.family]
            count = sum(row.numbers[first : first + group.counts])
            self.folded[group.family] = self.folded.get(group.family, 0.0) + count

    def _series_of(self, schema: RowSchema, values: tuple[str, ...]) -> list[Series]:
        key = id(schema), values
        made = self._lists.get(key)
        if made is None:
            labels = dict(zip(schema.labels, values, strict=True))
            made = self._lists[key] = []
            for group in schema.groups:
                self._add_group(group, labels, made)
        return made

    def _add_group(self, group: CellGroup, labels: dict[str, str], made: list[Series]) -> None:
        names = tuple(sorted(group.labels))
        pairs = tuple([(name, labels[name]) for name in names])
        split = bisect_left(names, "le")
        before, after = pairs[:split], pairs[split:]
        kind = "histogram" if group.bounds else "counter"
        family = group.family if group.bounds else group.family.removesuffix("_total")
        for sample, bucket in _samples(group):
            key = sample, (*before, *bucket, *after)
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = Series(family, kind, "", sample, key[1], "", names)
            made.append(series)


@lru_cache(maxsize=256)
def _samples(group: CellGroup) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Return the sample name of each cell of a family, and the bucket's label where it has one."""
    if not group.bounds:
        return ((group.family, ()),)
    buckets = [(f"{group.family}_bucket", (("le", text),)) for text in _bucket_texts(group.bounds)]
    return (*buckets, (f"{group.family}_sum", ()))


def sum_by(totals: Iterable[RowTotal], family: str, label: str) -> dict[str, float]:
    """Return the sums of one of our own families by the values of a label.

    For ``le`` these are the buckets of a histogram, not cumulative.
    """
    sums: dict[str, float] = {}
    # Rows of a schema are consecutive, so what depends on the schema alone is looked up once.
    for schema, rows in groupby(totals, attrgetter("schema")):
        first = schema.first_cells().get(family)
        if first is None:
            continue
        if label == "le":
            bounds = next(group.bounds for group in schema.groups if group.family == family)
            _add_buckets(sums, _bucket_texts(bounds), [row.numbers[first : first + len(bounds) + 1] for row in rows])
            continue
        index = schema.labels.index(label)
        for row in rows:
            sums[row.values[index]] = sums.get(row.values[index], 0.0) + row.numbers[first]
    return sums


def sum_by_slot(totals: Sequence[RowTotal], family: str, added: str) -> dict[str, float]:
    """Return the sums of one of our own families by the number of the slot that holds it, and what masters counted for
    workers of the slot that had ended: the family ``added``, by ``worker_id``.
    """
    sums = sum_by(totals, added, "worker_id")
    for schema, rows in groupby(totals, attrgetter("schema")):
        first = schema.first_cells().get(family)
        if first is None:
            continue
        for row in rows:
            for slot, numbers in row.parts.items():
                if slot >= 0:
                    sums[str(slot)] = sums.get(str(slot), 0.0) + numbers[first]
    return sums


def _add_buckets(sums: dict[str, float], texts: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    counts = rows[0] if len(rows) == 1 else list(map(sum, zip(*rows, strict=True)))
    if not sums:
        sums.update(zip(texts, counts, strict=True))
        return
    for text, count in zip(texts, counts, strict=True):
        sums[text] = sums.get(text, 0.0) + count


@lru_cache(maxsize=256)
def _bucket_texts(bounds: tuple[float, ...]) -> tuple[str, ...]:
    """Return the values of ``le`` for ``bounds``, which do not contain the infinite one."""
    return tuple(map(go_string, (*bounds, math.inf)))
