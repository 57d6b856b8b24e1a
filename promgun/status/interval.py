"""What happened between two snapshots of an instance: rates, shares and quantiles, as PromQL has them."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from operator import sub

from promgun.status.snapshot import SlotTotals, Snapshot

#: Seconds; two snapshots closer than this make no interval, their differences mean nothing.
_SHORTEST = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInterval:
    """A slot in an interval: requests a second, CPUs used, and the share of its capacity that was busy."""

    requests_per_second: float
    cpu_share: float
    utilisation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What happened between two snapshots; ``None`` is not known, e.g. a quantile without a request.

    Quantiles are estimated as PromQL's ``histogram_quantile`` does, linear inside a bucket; one that equals
    ``longest_bound``, the last finite bound, may in truth be longer. ``longest`` is the upper bound of the longest
    request's bucket. From the fine histogram of a store each is right to 5 %. ``buckets`` are the ones they come from,
    so that the bounds of coarse ones can be shown instead (:func:`quantile_bounds`). ``error_share`` is the share of
    5xx answers.
    """

    seconds: float
    requests: float
    requests_per_second: float
    error_share: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    longest: float | None
    longest_bound: float
    buckets: Mapping[float, float]
    utilisation: float | None
    workers: Mapping[int, WorkerInterval]
    exits: Mapping[str, int]

    @classmethod
    def between(cls, earlier: Snapshot, later: Snapshot) -> Interval | None:
        """Compare two snapshots; ``None`` when they are of the same moment, as two answers from one cache are.

        A counter that is smaller than before was reset, so its whole value counts, as in PromQL's ``increase``.
        """
        seconds = _elapsed(earlier, later)
        if seconds < _SHORTEST:
            return None
        requests = _increases(earlier.requests, later.requests)
        total = sum(requests.values())
        durations = _bucket_increases(earlier.durations, later.durations)
        in_order = _in_order(durations)
        errors = sum(count for status, count in requests.items() if status.startswith("5"))
        room = _capacity_seconds(earlier, later, seconds)
        slots = {slot: _increase_of(earlier.slots.get(slot), now) for slot, now in later.slots.items()}
        # what a worker was busy that neither snapshot has seen has no capacity to be compared with
        busy = sum(min(slots[slot].busy, room[slot]) for slot in room.keys() & slots.keys())
        exits = _increases(earlier.exits, later.exits)
        return cls(
            seconds=seconds,
            requests=total,
            requests_per_second=total / seconds,
            error_share=errors / total if total else None,
            p50=_estimate(0.5, *in_order),
            p95=_estimate(0.95, *in_order),
            p99=_estimate(0.99, *in_order),
            longest=_longest(*in_order),
            longest_bound=max(filter(math.isfinite, durations), default=0.0),
            buckets=durations,
            utilisation=_ratio(busy, sum(room.values())),
            workers={slot: _worker_interval(slots[slot], room.get(slot, 0.0), seconds) for slot in slots},
            exits={cause: int(count) for cause, count in exits.items() if count},
        )


def quantile(q: float, buckets: Mapping[float, float]) -> float | None:
    """Return the value that a share ``q`` does not exceed, from cumulative buckets; ``None`` without an observation.

    Linear inside a bucket, and the last finite bound for what lies beyond it: PromQL's ``histogram_quantile``.
    """
    return _estimate(q, *_in_order(buckets))


def _estimate(q: float, bounds: list[float], counts: list[float]) -> float | None:
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
    return _bounds_of(q, *_in_order(buckets))


def _bounds_of(q: float, bounds: list[float], counts: list[float]) -> tuple[float, float]:
    if not counts or counts[-1] <= 0:
        return 0.0, 0.0
    at = _bucket_of(q * counts[-1], counts)
    return bounds[at - 1] if at else 0.0, bounds[at]


def _in_order(buckets: Mapping[float, float]) -> tuple[list[float], list[float]]:
    """Return the bounds, rising, and the counts, which rise too: they are cumulative."""
    bounds = sorted(buckets)
    return bounds, list(accumulate(map(buckets.__getitem__, bounds), max))


def _bucket_of(rank: float, counts: list[float]) -> int:
    """Return the index of the bucket with that observation; an empty bucket has none."""
    return bisect_left(counts, rank) if rank > 0 else bisect_right(counts, 0.0)


def _longest(bounds: list[float], counts: list[float]) -> float | None:
    low, high = _bounds_of(1.0, bounds, counts)
    return (high if math.isfinite(high) else low) or None


def _elapsed(earlier: Snapshot, later: Snapshot) -> float:
    """Return the seconds between two snapshots by the server's clock, by ours when another master answers."""
    observed = later.taken - earlier.taken
    if earlier.uptime is None or later.uptime is None:
        return observed
    served = later.uptime - earlier.uptime
    return served if 0 <= served <= 2 * observed + 1 else observed


def _increase(earlier: float, later: float) -> float:
    return later - earlier if later >= earlier else later


def _increases(earlier: Mapping[str, float], later: Mapping[str, float]) -> dict[str, float]:
    return {key: _increase(earlier.get(key, 0.0), value) for key, value in later.items()}


def _bucket_increases(earlier: Mapping[float, float], later: Mapping[float, float]) -> dict[float, float]:
    """As :func:`_increases`; if one bucket was reset, or the bounds were changed, all of them count as reset."""
    if list(earlier) == list(later):
        counts = list(map(sub, later.values(), earlier.values()))
        return dict(later) if min(counts, default=0.0) < 0 else dict(zip(later, counts, strict=True))
    if earlier.keys() - later.keys() or any(later[bound] < count for bound, count in earlier.items()):
        return dict(later)
    return {bound: count - earlier.get(bound, 0.0) for bound, count in later.items()}


def _increase_of(earlier: SlotTotals | None, later: SlotTotals) -> SlotTotals:
    earlier = earlier or SlotTotals()
    return SlotTotals(
        _increase(earlier.requests, later.requests),
        _increase(earlier.busy, later.busy),
        _increase(earlier.cpu, later.cpu),
    )


def _capacity_seconds(earlier: Snapshot, later: Snapshot, seconds: float) -> dict[int, float]:
    """Return by slot the seconds that its worker could serve requests in the interval, times how many at once.

    A worker that started in the interval counts from its start. One that ended in it counts for all of it, because its
    end is not known.
    """
    found = {}
    for slot in earlier.workers.keys() | later.workers.keys():
        before, after = earlier.workers.get(slot), later.workers.get(slot)
        capacity = max(worker.capacity for worker in (before, after) if worker is not None)
        lived = seconds if before is not None or after is None or not after.uptime else min(seconds, after.uptime)
        found[slot] = capacity * lived
    return found


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _worker_interval(increase: SlotTotals, room: float, seconds: float) -> WorkerInterval:
    return WorkerInterval(
        requests_per_second=increase.requests / seconds,
        cpu_share=increase.cpu / seconds,
        utilisation=_ratio(min(increase.busy, room), room),
    )
