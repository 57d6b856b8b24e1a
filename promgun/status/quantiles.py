"""Quantiles of a histogram, as numbers and as text."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import accumulate

from promgun.metrics.fine_durations import FINE_BOUNDS, WIDEST
from promgun.status import texts


def quantile(q: float, buckets: Mapping[float, float]) -> float | None:
    """Return the value that a share ``q`` does not exceed, from cumulative buckets; ``None`` without an observation.

    Linear inside a bucket, and the last finite bound for what lies beyond it: PromQL's ``histogram_quantile``.
    """
    return estimate(q, *in_order(buckets))


def estimate(q: float, bounds: list[float], counts: list[float]) -> float | None:
    """As :func:`quantile`, of bounds and counts in order."""
    count = counts[-1] if counts else 0.0
    if count <= 0:
        return None
    at = _bucket_of(q * count, counts)
    start, below = (bounds[at - 1], counts[at - 1]) if at else (0.0, 0.0)
    if math.isinf(bounds[at]):
        return start
    return start + (bounds[at] - start) * (q * count - below) / (counts[at] - below)


def quantile_bounds(q: float, buckets: Mapping[float, float]) -> tuple[float, float]:
    """Return the bounds of the bucket that :func:`quantile` looks into; 0 and 0 without an observation."""
    return _bounds_of(q, *in_order(buckets))


def _bounds_of(q: float, bounds: list[float], counts: list[float]) -> tuple[float, float]:
    if not counts or counts[-1] <= 0:
        return 0.0, 0.0
    at = _bucket_of(q * counts[-1], counts)
    return bounds[at - 1] if at else 0.0, bounds[at]


def in_order(buckets: Mapping[float, float]) -> tuple[list[float], list[float]]:
    """Return the bounds, rising, and the counts, which rise too: they are cumulative."""
    bounds = sorted(buckets)
    return bounds, list(accumulate(map(buckets.__getitem__, bounds), max))


def _bucket_of(rank: float, counts: list[float]) -> int:
    """Return the index of the bucket with that observation; an empty bucket has none."""
    return bisect_left(counts, rank) if rank > 0 else bisect_right(counts, 0.0)


def longest_of(bounds: list[float], counts: list[float]) -> float | None:
    """Return the upper bound of the longest observation's bucket, of bounds and counts in order; ``None`` without one.

    The last finite bound stands for what lies beyond it.
    """
    low, high = _bounds_of(1.0, bounds, counts)
    return (high if math.isfinite(high) else low) or None


def quantile_text(q: float, buckets: Mapping[float, float]) -> str:
    """Return the time that a share ``q`` does not exceed: a number where the buckets are fine, else the bounds of the
    one that it lies in; a dash without an observation.
    """
    value = quantile(q, buckets)
    if value is None:
        return texts.NOTHING
    low, high = quantile_bounds(q, buckets)
    if math.isinf(high):
        return f"> {texts.latency(value)}"
    # Only the contract's buckets are known by route, and of another host's page: an estimate in them may be far off.
    coarse = high > low * WIDEST and high > FINE_BOUNDS[0]
    return texts.between(low, high) if coarse else texts.latency(value)
