"""From merged series to prometheus_client metric families."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

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


def cap_label_sets(series: list[Series], free: frozenset[str], cap: int, overflow: str) -> list[Series]:
    """Return ``series`` with at most ``cap`` label sets (``le`` aside): those behind in alphabetical order are folded.

    Every process keeps the cap for itself; here it is kept for all of them. Sets are only ever added, so one that was
    folded never comes back,
    and no total of what is shown, the folded set's included, ever sinks: that is why the order goes by name and not
    by age or size.
    """
    by_set: dict[Labels, list[Series]] = {}
    for item in series:
        by_set.setdefault(item.group, []).append(item)
    if len(by_set) <= cap:
        return series
    kept: list[Series] = []
    shown = 0
    for labels in sorted(by_set):
        folded = any(value == overflow for name, value in labels if name in free)
        shown += not folded
        if folded or shown <= cap:
            kept.extend(by_set[labels])
            continue
        kept.extend(
            replace(item, labels=tuple((name, overflow if name in free else value) for name, value in item.labels))
            for item in by_set[labels]
        )
    return kept


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
