"""From merged series to prometheus_client metric families."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
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


def _without_duplicates(series: list[Series]) -> Iterable[Series]:
    """Merge series that differ in nothing but their help text: two versions of an application on one store."""
    seen: dict[tuple[str, Labels], Series] = {}
    for item in series:
        key = item.sample, item.labels
        if key not in seen:
            seen[key] = item
            continue
        # A copy: a family may be made more than once of one reading.
        present = seen[key] = copy.copy(seen[key])
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
