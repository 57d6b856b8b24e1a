"""From merged series to prometheus_client metric families."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from promgun.store.format import go_string
from promgun.store.reader import Series

Labels = tuple[tuple[str, str], ...]


def build_family(name: str, series: list[Series]) -> Metric:
    """Return one family with its samples; histogram buckets are made cumulative, as the exposition formats want them.

    Raises ``ValueError`` for names or bounds that no metric can have: a damaged file can spell anything.
    """
    first = series[0]
    family = Metric(name, first.documentation, first.kind)
    if first.kind == "histogram":
        family.samples = list(_histogram_samples(name, series))
    else:
        family.samples = [Sample(item.sample, dict(item.labels), item.value) for item in _without_duplicates(series)]
    return family


def _without_duplicates(series: list[Series]) -> Iterable[Series]:
    """Drop series that differ in nothing but their help text: two versions of an application on one store."""
    seen: dict[tuple[str, Labels], Series] = {}
    for item in series:
        present = seen.setdefault((item.sample, item.labels), item)
        if present is not item and item.kind != "gauge":
            present.value += item.value
    return seen.values()


def _histogram_samples(name: str, series: list[Series]) -> Iterable[Sample]:
    groups: dict[Labels, tuple[dict[float, float], list[float]]] = {}
    for item in series:
        bound = next((value for label, value in item.labels if label == "le"), None)
        labels = item.labels if bound is None else tuple(pair for pair in item.labels if pair[0] != "le")
        buckets, total = groups.setdefault(labels, ({}, [0.0]))
        if bound is None:
            total[0] += item.value
        else:
            upper = float(bound)
            buckets[upper] = buckets.get(upper, 0.0) + item.value
    for labels, (buckets, total) in groups.items():
        shared = dict(labels)
        running = 0.0
        for upper in sorted(buckets):
            running += buckets[upper]
            yield Sample(f"{name}_bucket", {**shared, "le": go_string(upper)}, running)
        yield Sample(f"{name}_count", shared, running)
        yield Sample(f"{name}_sum", shared, total[0])
