"""What OpenMetrics has no place for: one such sample, and a strict reader refuses the whole page.

The rules are those of OpenMetrics 1.0 as prometheus_client's parser applies them (0.26 ``openmetrics/parser.py``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from promgun.collect.row_family import RowFamily
from promgun.collect.series_family import SeriesFamily

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.samples import Sample

_TYPES = frozenset({"counter", "histogram", "summary"})


def allowed(families: Iterable[Metric]) -> Iterator[Metric]:
    """Yield the families without samples that OpenMetrics does not allow.

    Totals, counts and sums may be neither negative nor NaN. A histogram with a bound below 0 has no sum, and one
    without a sum has no count; the count is also in its bucket of ``+Inf``. A counter ``x_total`` beside a gauge ``x``
    is of unknown type here: a counter's family has its name without the suffix, and two families may not have one name.
    """
    families = list(families)
    gauges = {family.name for family in families if family.type == "gauge"}
    for family in families:
        if family.type == "counter" and family.name in gauges:
            untyped = copy.copy(family)
            untyped.name, untyped.type = f"{family.name}_total", "unknown"
            yield untyped
            continue
        wrong = _wrong(family) if family.type in _TYPES and not _is_right(family) else ()
        if wrong:
            part = copy.copy(family)
            part.samples = [sample for sample in family.samples if (sample.name, _group(sample)) not in wrong]
            yield part
        else:
            yield family


def _is_right(family: Metric) -> bool:
    """Whether a family has nothing to leave out: no value below 0, no NaN, no bound below 0.

    Of our families readers take no number below 0, so only a bound could be.
    """
    if isinstance(family, RowFamily) and family.rows:
        return family.type != "histogram" or all(bounds[0] >= 0 for bounds, _ in family.rows.values())
    if isinstance(family, SeriesFamily) and family.layout is not None:
        return not family.layout.has_negative_bound and all(map((0.0).__le__, family.values))
    return False


def _wrong(family: Metric) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Return name and labels of the samples that are not allowed; a bucket's without ``le``, as all go together."""
    name = family.name
    checked = {f"{name}{suffix}" for suffix in ("_total", "_sum", "_count", "_bucket")}
    wrong = {
        (sample.name, _group(sample)) for sample in family.samples if sample.name in checked and not sample.value >= 0
    }
    if family.type != "histogram":
        return wrong
    total, count, bucket = f"{name}_sum", f"{name}_count", f"{name}_bucket"
    for sample in family.samples:
        if sample.name == bucket and sample.labels["le"].startswith("-") and float(sample.labels["le"]) < 0:
            wrong.add((total, _group(sample)))
    return wrong | {(count, group) for sample, group in wrong if sample == total}


def _group(sample: Sample) -> frozenset[tuple[str, str]]:
    if not sample.name.endswith("_bucket"):
        return frozenset(sample.labels.items())
    return frozenset(pair for pair in sample.labels.items() if pair[0] != "le")
