"""The figures at the head of the terminal view and of the status page, and the cells of a worker's row, as text.

Both views show what stands here, so neither formats a number or knows a threshold of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from types import MappingProxyType

from promgun.metrics.late_label_values import WorkerState
from promgun.status import texts
from promgun.status.history import Point
from promgun.status.interval import Interval, WorkerInterval
from promgun.status.quantiles import quantile_text
from promgun.status.snapshot import OpenRequest, Snapshot, Worker
from promgun.store.request_table import Phase

Level = str
#: How alarming a figure is: ``warn`` is yellow, ``bad`` is red.
FINE, WARN, BAD = "", "warn", "bad"
_ANY_ERROR = 1e-9
#: The phases in which the application has the request.
_SERVED = frozenset(phase.name.lower() for phase in Phase if phase >= Phase.APPLICATION)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: how it reads now, how alarming that is, and the minute before.

    ``read`` gives its value of a point, ``form`` the text of such a value. A bar of its chart is full at the largest
    value that ``scale`` (``read``, if not given) has in the minute, at ``least`` if all are smaller.
    """

    name: str
    text: Callable[[Snapshot, Interval | None], str]
    read: Callable[[Point], float | None]
    form: Callable[[float | None], str] = texts.count
    level: Callable[[Snapshot, Interval | None], Level] = lambda _snapshot, _interval: FINE
    least: float = 0.0
    scale: Callable[[Point], float | None] | None = None

    def most(self, points: Iterable[Point]) -> str:
        """The text of the largest value in those points; empty if none has one."""
        value = _largest(self.read, points)
        return "" if value is None else self.form(value)

    def ceiling(self, points: Iterable[Point]) -> float:
        """The value of a full bar."""
        return max(self.least, _largest(self.scale or self.read, points) or 0.0)


def _largest(read: Callable[[Point], float | None], points: Iterable[Point]) -> float | None:
    # All but ``read`` runs in C: apart from reading the store, this is most of what a status costs.
    values = set(map(read, points))
    values.discard(None)
    return max(values) if values else None  # type: ignore[type-var] # no None is left


def _workers(snapshot: Snapshot, _interval: Interval | None) -> str:
    states = snapshot.states
    counted = ", ".join(f"{states[state]} {state}" for state in sorted(states)) or "none alive"
    return f"{len(snapshot.workers)} of {snapshot.target}: {counted}"


def _workers_level(snapshot: Snapshot, _interval: Interval | None) -> Level:
    if WorkerState.HUNG in snapshot.states:
        return BAD
    return WARN if len(snapshot.workers) < snapshot.target else FINE


def _rate(_snapshot: Snapshot, interval: Interval | None) -> str:
    return f"{texts.rate(None if interval is None else interval.requests_per_second)} /s"


def _share(_snapshot: Snapshot, interval: Interval | None, *, name: str) -> str:
    return texts.share(None if interval is None else getattr(interval, name))


def _share_level(_snapshot: Snapshot, interval: Interval | None, *, name: str, warn: float, bad: float) -> Level:
    value = (None if interval is None else getattr(interval, name)) or 0.0
    return BAD if value >= bad else WARN if value >= warn else FINE


def _queue(snapshot: Snapshot, _interval: Interval | None) -> str:
    if not snapshot.queues:
        return texts.NOTHING
    return f"{snapshot.waiting} of {sum(queue.limit for queue in snapshot.queues)}"


def _in_use(snapshot: Snapshot, _interval: Interval | None) -> str:
    return f"{snapshot.in_use} of {snapshot.capacity}" if snapshot.capacity else f"{snapshot.in_use}"


def _quantile(_snapshot: Snapshot, interval: Interval | None, *, name: str) -> str:
    return texts.NOTHING if interval is None else quantile_text(_QUANTILES[name], interval.buckets)


#: The share of requests that took no longer, by figure.
_QUANTILES = MappingProxyType({"p50": 0.5, "p95": 0.95, "p99": 0.99, "longest": 1.0})


def _latency(name: str) -> Figure:
    return Figure(name, partial(_quantile, name=name), attrgetter(name), texts.latency, scale=attrgetter("longest"))


#: By name, in the order of the page.
FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        figure.name: figure
        for figure in (
            Figure("workers", _workers, attrgetter("workers"), level=_workers_level, least=1.0),
            Figure("requests", _rate, attrgetter("requests_per_second"), texts.rate),
            Figure(
                "errors",
                partial(_share, name="error_share"),
                attrgetter("error_share"),
                texts.share,
                partial(_share_level, name="error_share", warn=_ANY_ERROR, bad=0.01),
                least=0.01,
            ),
            Figure(
                "utilised",
                partial(_share, name="utilisation"),
                attrgetter("utilisation"),
                texts.share,
                partial(_share_level, name="utilisation", warn=0.8, bad=0.95),
                least=1.0,
            ),
            Figure("queue", _queue, attrgetter("queue"), least=1.0),
            Figure("in use", _in_use, attrgetter("in_use"), least=1.0),
            *map(_latency, _QUANTILES),
        )
    }
)


def shown_request(worker: Worker) -> OpenRequest | None:
    """The request that a worker's row shows: the oldest that the application has, else the oldest of all."""
    running = worker.running
    for request in running:
        if request.phase in _SERVED:
            return request
    return running[0] if running else None


def shown_age(worker: Worker) -> float | None:
    """The age in seconds of the request that a worker's row shows; of a page of metrics, of the oldest request."""
    request = shown_request(worker)
    return (worker.oldest_request or None) if request is None else request.age


def request_text(worker: Worker, *, paths: bool = True) -> str:
    """The request that a worker's row shows, by path and route or by phase, and how many more run:
    ``GET /users/5 [/users/<int:user>] +2``.
    """
    if not worker.running:
        return ""
    request = shown_request(worker)
    assert request is not None  # noqa: S101 - one is running
    path, route = request.path if paths else "", request.route
    if route in {"", path}:
        text = f"{request.method} {path}" if path else f"({request.phase})"
    else:
        text = f"{request.method} {path} [{route}]" if path else f"{request.method} {route}"
    others = max(len(worker.running), worker.in_progress) - 1
    return f"{text} +{others}" if others > 0 else text


def in_use_text(workers: Iterable[Worker]) -> str:
    """How much of the capacity of some workers is in use; what is, where there is no limit."""
    used, capacity = 0, 0
    for worker in workers:
        used += worker.in_use
        capacity += worker.capacity
    return f"{used}/{capacity}" if capacity else str(used)


def worker_texts(worker: Worker, interval: WorkerInterval | None, *, paths: bool) -> dict[str, str]:
    """The cells of a worker's row that take more than writing a text or a count."""
    return {
        "request": request_text(worker, paths=paths),
        "age": texts.age(shown_age(worker)),
        "rate": texts.rate(None if interval is None else interval.requests_per_second),
        "in_use": in_use_text([worker]),
        "lag": texts.latency(worker.loop_lag),
        "cpu": texts.cpu(None if interval is None else interval.cpu_share),
        "memory": texts.memory(worker.memory),
    }
