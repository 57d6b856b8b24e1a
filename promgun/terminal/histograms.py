"""A histogram in a few figures: count, mean, and the bucket bounds that half and 99 % of the observations keep to."""

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

    def bound(self, share: float) -> float:
        """The smallest bucket bound that a ``share`` of the observations does not exceed: all that buckets can tell.

        Infinite when those lie in the last bucket, NaN when there is no observation.
        """
        bounds = (bound for bound, cumulative in sorted(self.buckets.items()) if cumulative >= share * self.count)
        return next(bounds, math.inf) if self.count else math.nan

    def __str__(self) -> str:
        if not self.count:
            return "0 observations"
        shares = ", ".join(f"p{share * 100:.0f} {self._text(self.bound(share))}" for share in (0.5, 0.99))
        return f"{self.count:.10g} observations, mean {self.mean:.3g}, {shares}"

    def _text(self, bound: float) -> str:
        last = max((edge for edge in self.buckets if math.isfinite(edge)), default=0.0)
        return f"≤ {bound:.10g}" if math.isfinite(bound) else f"> {last:.10g}"


def has_all_parts(family: Metric) -> bool:
    """Whether ``family`` is a histogram with all that a summary needs: ``--match`` may have left only its buckets."""
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
