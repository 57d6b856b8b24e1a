"""A histogram in a few figures, for people: count, mean, and quantiles estimated from its buckets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.core import Metric


@dataclass(slots=True)
class Summary:
    """One label set of a histogram: cumulative ``buckets`` by upper bound, as on the page."""

    count: float = 0.0
    total: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """The mean of all observations, NaN when there is none."""
        return self.total / self.count if self.count else math.nan

    def quantile(self, q: float) -> float:
        """The value that a share ``q`` of the observations does not exceed, linear inside a bucket as in PromQL.

        In the last, unbounded bucket it is the highest finite bound; NaN when there is no observation.
        """
        rank, below, start = q * self.count, 0.0, 0.0
        for bound, cumulative in sorted(self.buckets.items()):
            if cumulative >= rank and cumulative > 0:
                if math.isinf(bound):
                    return start
                inside = cumulative - below
                return start + (bound - start) * ((rank - below) / inside if inside else 1.0)
            below, start = cumulative, bound
        return math.nan

    def __str__(self) -> str:
        if not self.count:
            return "0 observations"
        return (
            f"{self.count:.10g} observations, mean {self.mean:.3g}, "
            f"p50 {self.quantile(0.5):.3g}, p99 {self.quantile(0.99):.3g}"
        )


def is_whole(family: Metric) -> bool:
    """Whether ``family`` is a histogram with all that a summary needs (``--match`` may have left a part only)."""
    suffixes = {sample.name.removeprefix(family.name) for sample in family.samples}
    return family.type == "histogram" and suffixes >= {"_bucket", "_count", "_sum"}


def summaries(family: Metric) -> Iterator[tuple[dict[str, str], Summary]]:
    """Each label set of a whole histogram, without ``le``, and its figures, in the order of the page."""
    found: dict[tuple[tuple[str, str], ...], Summary] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        summary = found.setdefault(tuple(sorted(labels.items())), Summary())
        match sample.name.removeprefix(family.name):
            case "_bucket":
                summary.buckets[float(sample.labels["le"])] = sample.value
            case "_count":
                summary.count = sample.value
            case "_sum":
                summary.total = sample.value
    for key, summary in found.items():
        yield dict(key), summary
