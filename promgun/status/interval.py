"""What happened between two snapshots of an instance: rates, shares and quantiles, as PromQL has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import sub

from promgun.status.quantiles import estimate, in_order, longest_of
from promgun.status.routes import RouteInterval, routes_between
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
    so that the bounds of coarse ones can be shown instead (``status.quantiles``). ``error_share`` is the share of
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
    routes: tuple[RouteInterval, ...] = ()

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
        ordered = in_order(durations)
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
            p50=estimate(0.5, *ordered),
            p95=estimate(0.95, *ordered),
            p99=estimate(0.99, *ordered),
            longest=longest_of(*ordered),
            longest_bound=max(filter(math.isfinite, durations), default=0.0),
            buckets=durations,
            utilisation=_ratio(busy, sum(room.values())),
            workers={slot: _worker_interval(slots[slot], room.get(slot, 0.0), seconds) for slot in slots},
            exits={cause: int(count) for cause, count in exits.items() if count},
            routes=routes_between(earlier.routes, later.routes, seconds),
        )


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
