"""A snapshot from the metric families of one page, collected here or served by another host."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from promgun.collect.route_sums import RouteTotals
from promgun.metrics.families import listeners, master, requests, websockets, workers
from promgun.metrics.label_values import WorkerCount
from promgun.metrics.spec import HistogramFamily, MetricSpec
from promgun.status.snapshot import Details, Queue, SlotTotals, Snapshot, Worker

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.samples import Sample

#: The families that a snapshot is made of.
_READ: tuple[MetricSpec, ...] = (
    listeners.LISTENER_QUEUE_CONNECTIONS,
    listeners.LISTENER_QUEUE_LIMIT,
    master.INFO,
    master.MASTER_UPTIME_SECONDS,
    master.UP,
    master.WORKERS,
    master.WORKER_EXITS,
    requests.REQUESTS,
    requests.REQUEST_CPU_SECONDS,
    requests.REQUEST_DURATION_SECONDS,
    workers.WORKER_BUSY_SECONDS,
    workers.WORKER_CAPACITY,
    workers.WORKER_CPU_SECONDS,
    workers.WORKER_HEARTBEAT_AGE_SECONDS,
    workers.WORKER_OLDEST_REQUEST_SECONDS,
    workers.WORKER_REQUESTS,
    workers.WORKER_REQUESTS_IN_PROGRESS,
    workers.WORKER_LOOP_LAG_SECONDS,
    websockets.WEBSOCKETS_OPEN,
    workers.WORKER_REQUESTS_LEFT,
    workers.WORKER_RESIDENT_MEMORY_BYTES,
    workers.WORKER_STATE,
    workers.WORKER_UPTIME_SECONDS,
)
#: Their names on a page: all that needs to be asked for (``?name[]=``).
FAMILIES = frozenset(family.family for family in _READ)
_MOST_DIGITS = 6
_BOUND = re.compile(r"\+Inf|[0-9]+(\.[0-9]+)?(e[+-]?[0-9]{1,2})?", re.ASCII)


def snapshot_of(families: Iterable[Metric], *, taken: float, at: float, details: Details | None = None) -> Snapshot:
    """Read a page that was collected at ``taken`` (the observer's monotonic clock) and ``at`` (Unix time).

    Never raises: what is missing, unknown or not a number is left out.
    """
    page = _Page(families)
    details = details or Details()
    return Snapshot(
        taken=taken,
        at=at,
        up=bool(page.value(master.UP)),
        uptime=page.value(master.MASTER_UPTIME_SECONDS),
        info=page.labels(master.INFO),
        target=int(page.by(master.WORKERS, "state").get(WorkerCount.TARGET, 0)),
        workers=_workers(page, details),
        slots=_slots(page),
        requests=page.by(requests.REQUESTS, "status"),
        durations=_durations(page),
        queues=_queues(page),
        exits={cause: int(count) for cause, count in page.by(master.WORKER_EXITS, "cause").items()},
        details=details,
        routes=_routes(page),
    )


class _Page:
    """The samples of a page by name, without those whose value is NaN or infinite."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for family in families:
            if family.name in FAMILIES:
                for sample in family.samples:
                    if math.isfinite(sample.value):
                        self._samples.setdefault(sample.name, []).append(sample)

    def value(self, family: MetricSpec) -> float | None:
        """Return the value of a sample without labels."""
        return next((sample.value for sample in self._of(family)), None)

    def labels(self, family: MetricSpec) -> dict[str, str]:
        """Return the labels of the first sample."""
        return next((dict(sample.labels) for sample in self._of(family)), {})

    def by(self, family: MetricSpec, label: str) -> dict[str, float]:
        """Return the sums of the samples (of a histogram, its buckets) by the value of one label."""
        sums: dict[str, float] = {}
        for sample in self._of(family):
            value = sample.labels.get(label, "")
            sums[value] = sums.get(value, 0.0) + sample.value
        return sums

    def by_route(self, name: str, label: str) -> dict[str, dict[str, float]]:
        """Return the sums of the samples of this name by route, then by the value of ``label`` (``""`` for none)."""
        sums: dict[str, dict[str, float]] = {}
        for sample in self._samples.get(name, ()):
            of_route = sums.setdefault(sample.labels.get("route", ""), {})
            value = sample.labels.get(label, "")
            of_route[value] = of_route.get(value, 0.0) + sample.value
        return sums

    def by_slot(self, family: MetricSpec) -> dict[int, float]:
        """Return the sums of a worker's family by slot."""
        return {int(text): value for text, value in self.by(family, "worker_id").items() if _is_slot(text)}

    def states(self) -> Iterator[tuple[int, str]]:
        """Yield the slots that have a living worker, and its state."""
        for sample in self._of(workers.WORKER_STATE):
            text = sample.labels.get("worker_id", "")
            if sample.value == 1 and _is_slot(text):
                yield int(text), sample.labels.get("state", "")

    def _of(self, family: MetricSpec) -> Sequence[Sample]:
        name = family.bucket if isinstance(family, HistogramFamily) else family.name
        return self._samples.get(name, ())


def _is_slot(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def _workers(page: _Page, details: Details) -> dict[int, Worker]:
    in_progress = page.by_slot(workers.WORKER_REQUESTS_IN_PROGRESS)
    open_websockets = page.by_slot(websockets.WEBSOCKETS_OPEN)
    capacity = page.by_slot(workers.WORKER_CAPACITY)
    oldest_request = page.by_slot(workers.WORKER_OLDEST_REQUEST_SECONDS)
    heartbeat_age = page.by_slot(workers.WORKER_HEARTBEAT_AGE_SECONDS)
    uptime = page.by_slot(workers.WORKER_UPTIME_SECONDS)
    memory = page.by_slot(workers.WORKER_RESIDENT_MEMORY_BYTES)
    requests_left = page.by_slot(workers.WORKER_REQUESTS_LEFT)
    loop_lag = page.by_slot(workers.WORKER_LOOP_LAG_SECONDS)
    return {
        slot: Worker(
            worker_id=slot,
            state=state,
            pid=details.pids.get(slot),
            in_progress=int(in_progress.get(slot, 0)),
            websockets=int(open_websockets.get(slot, 0)),
            capacity=int(capacity.get(slot, 0)),
            oldest_request=oldest_request.get(slot, 0.0),
            heartbeat_age=heartbeat_age.get(slot, 0.0),
            uptime=uptime.get(slot, 0.0),
            memory=_whole(memory.get(slot)),
            requests_left=_whole(requests_left.get(slot)),
            running=details.running.get(slot, ()),
            loop_lag=loop_lag.get(slot),
        )
        for slot, state in sorted(page.states())
    }


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _slots(page: _Page) -> dict[int, SlotTotals]:
    answered = page.by_slot(workers.WORKER_REQUESTS)
    busy = page.by_slot(workers.WORKER_BUSY_SECONDS)
    cpu = page.by_slot(workers.WORKER_CPU_SECONDS)
    return {
        slot: SlotTotals(answered.get(slot, 0.0), busy.get(slot, 0.0), cpu.get(slot, 0.0))
        for slot in sorted({*answered, *busy, *cpu})
    }


def _durations(page: _Page) -> dict[float, float]:
    """Return the cumulative buckets of all requests by bound; a bound that is not a number is left out."""
    found = {
        text: count
        for text, count in page.by(requests.REQUEST_DURATION_SECONDS, "le").items()
        if _BOUND.fullmatch(text)
    }
    return dict(sorted((float(text), count) for text, count in found.items()))


def _queues(page: _Page) -> tuple[Queue, ...]:
    limits = page.by(listeners.LISTENER_QUEUE_LIMIT, "listener")
    waiting = page.by(listeners.LISTENER_QUEUE_CONNECTIONS, "listener")
    return tuple(Queue(name, int(count), int(limits.get(name, 0))) for name, count in sorted(waiting.items()))


def routes_of(families: Iterable[Metric]) -> dict[str, RouteTotals]:
    """Return what a page has counted by route."""
    return _routes(_Page(families))


def _routes(page: _Page) -> dict[str, RouteTotals]:
    counted = page.by_route(requests.REQUESTS.name, "status")
    buckets = page.by_route(requests.REQUEST_DURATION_SECONDS.bucket, "le")
    busy = page.by_route(f"{requests.REQUEST_DURATION_SECONDS.name}_sum", "")
    cpu = page.by_route(requests.REQUEST_CPU_SECONDS.name, "")
    return {
        route: RouteTotals(
            sum(statuses.values()),
            sum(count for status, count in statuses.items() if status.startswith("5")),
            sum(busy.get(route, {}).values()),
            sum(cpu[route].values()) if route in cpu else None,
            *_histogram(buckets.get(route, {})),
        )
        for route, statuses in counted.items()
    }


def _histogram(buckets: Mapping[str, float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    counts = {float(text): count for text, count in buckets.items() if _BOUND.fullmatch(text)}
    bounds = tuple(sorted({*counts, math.inf}))
    return bounds, tuple(accumulate((counts.get(bound, 0.0) for bound in bounds), max))
