"""From merged series to prometheus_client metric families."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from operator import itemgetter

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from promgun.metrics.label_sets import fold, sets_to_fold
from promgun.store.format import go_string
from promgun.store.series import Series, merge_gauge

Labels = tuple[tuple[str, str], ...]


def build_family(name: str, series: list[Series]) -> Metric:
    """Return one family with its samples; histogram buckets are made cumulative, as the exposition formats want them.

    Raises ``ValueError`` for a name that no metric can have: a damaged file can spell anything.
    """
    first = series[0]
    family = Metric(name, first.documentation, first.kind)
    if first.kind == "histogram":
        family.samples = list(_histogram_samples(name, series))
    else:
        family.samples = [Sample(item.sample, dict(item.labels), item.value) for item in _without_duplicates(series)]
    return family


def cap_label_sets(series: list[Series], cap: int) -> list[Series]:
    """Return ``series`` of one family with at most ``cap`` label sets (``le`` aside), as :mod:`label_sets` decides.

    Every worker keeps the cap for itself; here it is kept for all of them together.
    """
    names = series[0].names
    by_set: dict[tuple[str, ...], list[Series]] = {}
    for item in series:
        by_set.setdefault(tuple(value for _, value in item.group), []).append(item)
    beyond = sets_to_fold(names, by_set.keys(), cap)
    if not beyond:
        return series
    shown: list[Series] = []
    # In one order for every reader: floats added in another one differ by a rounding error, which reads as a reset.
    for values, items in sorted(by_set.items(), key=itemgetter(0)):
        if values not in beyond:
            shown.extend(items)
            continue
        folded = dict(zip(names, fold(names, values), strict=True))
        shown.extend(
            replace(item, labels=tuple((name, folded.get(name, value)) for name, value in item.labels))
            for item in items
        )
    return shown


def _without_duplicates(series: list[Series]) -> Iterable[Series]:
    """Merge series that differ in nothing but their help text: two versions of an application on one store."""
    seen: dict[tuple[str, Labels], Series] = {}
    for item in series:
        present = seen.setdefault((item.sample, item.labels), item)
        if present is item:
            continue
        if item.kind == "gauge":
            merge_gauge(present, item.value, item.stamp)
        else:
            present.value += item.value
    return seen.values()


def _histogram_samples(name: str, series: list[Series]) -> Iterable[Sample]:
    groups: dict[Labels, tuple[dict[float, float], list[float]]] = {}
    for item in series:
        found = groups.get(item.group)
        if found is None:
            found = groups[item.group] = ({}, [0.0])
        upper = item.upper
        if upper is None:
            found[1][0] += item.value
        elif not math.isnan(upper):
            # NaN has no place in any order
            found[0][upper] = found[0].get(upper, 0.0) + item.value
    bucket, count, total = (f"{name}_{part}" for part in ("bucket", "count", "sum"))
    for labels, (buckets, summed) in groups.items():
        shared = dict(labels)
        # No histogram is without it, unless its key was damaged.
        buckets.setdefault(math.inf, 0.0)
        running = 0.0
        for upper in sorted(buckets):
            running += buckets[upper]
            yield Sample(bucket, {**shared, "le": _spell(upper)}, running)
        yield Sample(count, shared, running)
        yield Sample(total, shared, summed[0])


_spell = lru_cache(maxsize=1024)(go_string)
