"""An instance's state as JSON, for the status page and whoever else wants to draw it."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from promgun.status import texts
from promgun.status.figures import FIGURES, worker_texts
from promgun.status.history import DIGITS, History, Point
from promgun.status.interval import Interval, WorkerInterval
from promgun.status.routes import RouteInterval, first_of_each, route_texts, summed, worth_a_table
from promgun.status.snapshot import OpenRequest, Snapshot, Worker

SCHEMA = 1
#: The most routes that are told one by one.
MOST_ROUTES = 50


def to_json(snapshot: Snapshot, history: History, *, paths: bool = False) -> str:
    """The newest snapshot and what ``history`` knows, as strict JSON (no NaN) of schema 1.

    Within a schema keys are only added. Units are in the names: ``_seconds``, ``_bytes``, ``_share`` (0 to 1),
    ``_per_second``, ``_unix_seconds``; what has no unit is a count. ``null`` is what is not known: no interval yet, no
    request in it, no such limit. Texts are for people, and may change. All of it is one object::

        schema                        1
        taken_unix_seconds            when the snapshot was taken
        interval_seconds              length of the last interval, null before there is one
        up                            whether the master lives
        instance                      {name, application, addresses: [str], worker_type, gunicorn, promgun, python,
                                      uptime_seconds, uptime_text}; gunicorn, promgun and python are versions
        workers_target                workers that the master wants
        workers_by_state              {state: n}, of states that any worker is in
        now                           {workers, requests_in_progress, websockets, in_use, capacity, queue_connections,
                                      queue_limit, requests_per_second, error_share, p50_seconds, p95_seconds,
                                      p99_seconds, longest_seconds, longest_bound_seconds, utilisation_share}; in_use
                                      are requests and websockets
        figures                       [{name, text, level, point, most, ceiling}], the head of the status page: text is
                                      the figure now, level "", "warn" or "bad", point the key of history.points that
                                      its chart shows, most the text of the largest of those, ceiling a full bar
        history                       {seconds, points}: one point an interval, oldest first, {at_unix_seconds,
                                      interval_seconds, workers, requests_in_progress, in_use, queue_connections,
                                      requests_per_second, error_share, p50_seconds, p95_seconds, p99_seconds,
                                      longest_seconds, utilisation_share}
        queues                        [{listener, connections, limit}]
        workers                       [{worker_id, pid, state, requests_in_progress, websockets, capacity,
                                      requests_per_second, loop_lag_seconds, cpu_share, utilisation_share,
                                      resident_memory_bytes, requests_left, uptime_seconds, heartbeat_age_seconds,
                                      oldest_request_seconds, running, texts}]; loop_lag_seconds is null without a loop
        workers[].texts               {request, age, rate, in_use, lag, cpu, memory}
        workers[].running             [{phase, method, route, age_seconds}] oldest first, at most 64; with ``paths``
                                      also path, which never has a query string. The client's address is left out.
        routes                        [{route, requests_per_second, error_share, p50_seconds, p95_seconds, busy_seconds,
                                      busy_share, cpu_share, texts}], the busiest first: 50 at most, among them the
                                      first ones by each of rate, errors, p95, busy and cpu; empty where no route is
                                      known. busy_share is the share of the seconds that all requests took
        routes[].texts                {route, rate, errors, p50, p95, busy, cpu}
        routes_left_out               {routes, requests_per_second, error_share, busy_seconds, busy_share, cpu_share,
                                      texts}: all other routes together, null if there are none
        exits                         {total: {cause: n}, since_watch: {cause: n}, watched_since_unix_seconds,
                                      last: [{at_unix_seconds, cause, count}]}, the last one first

    Quantiles, and the longest request, are right to 5 % from 1 ms to 1,000 s; one that equals ``longest_bound_seconds``
    may in truth be longer. By route they are estimates in the contract's buckets, whose bounds the texts show.
    ``cpu_share`` is in CPUs: 1 is one CPU in full.
    """
    texts_by_key = {key: _encode(value) for key, value in _without_points(snapshot, history, paths=paths).items()}
    points = ", ".join(map(_point_text, history.points))
    texts_by_key["history"] = f'{{"seconds": {_encode(history.seconds)}, "points": [{points}]}}'
    return f"{{{', '.join(f'{_encode(key)}: {text}' for key, text in texts_by_key.items())}}}"


def to_object(snapshot: Snapshot, history: History, *, paths: bool = False) -> dict[str, Any]:
    """As :func:`to_json`, before it becomes text."""
    points = [_point(point) for point in history.points]
    return _without_points(snapshot, history, paths=paths) | {"history": {"seconds": history.seconds, "points": points}}


def _without_points(snapshot: Snapshot, history: History, *, paths: bool) -> dict[str, Any]:
    """As :func:`to_object`, but for the history, which is ``None``."""
    interval = history.interval
    details, info = snapshot.details, snapshot.info
    return {
        "schema": SCHEMA,
        "taken_unix_seconds": round(snapshot.at, 3),
        "interval_seconds": None if interval is None else round(interval.seconds, 3),
        "up": snapshot.up,
        "instance": {
            "name": details.name,
            "application": details.application,
            "addresses": list(details.addresses),
            **{name: info.get(name, "") for name in ("worker_type", "gunicorn", "promgun", "python")},
            "uptime_seconds": _rounded(snapshot.uptime),
            "uptime_text": "" if snapshot.uptime is None else texts.duration(snapshot.uptime),
        },
        "workers_target": snapshot.target,
        "workers_by_state": snapshot.states,
        "now": _now(snapshot, interval),
        "figures": _figures(snapshot, history),
        "history": None,
        "queues": [
            {"listener": queue.listener, "connections": queue.connections, "limit": queue.limit}
            for queue in snapshot.queues
        ],
        "workers": [
            _worker(worker, interval.workers.get(slot) if interval is not None else None, paths=paths)
            for slot, worker in snapshot.workers.items()
        ],
        **_routes(interval),
        "exits": {
            "total": dict(snapshot.exits),
            "since_watch": dict(history.exits),
            "watched_since_unix_seconds": _rounded(history.since, 3),
            "last": [
                {"at_unix_seconds": round(event.at, 3), "cause": event.cause, "count": event.count}
                for event in history.events
            ],
        },
    }


def _rounded(value: float | None, digits: int = DIGITS) -> float | None:
    return None if value is None else round(value, digits)


def _figures(snapshot: Snapshot, history: History) -> list[dict[str, Any]]:
    points = history.points
    return [
        {
            "name": figure.name,
            "text": figure.text(snapshot, history.interval),
            "level": figure.level(snapshot, history.interval),
            "point": _POINT_KEYS[figure.name],
            "most": figure.most(points),
            "ceiling": figure.ceiling(points),
        }
        for figure in FIGURES.values()
    ]


#: Where in a point of the history the value of a figure stands.
_POINT_KEYS = {
    "workers": "workers",
    "requests": "requests_per_second",
    "errors": "error_share",
    "utilised": "utilisation_share",
    "queue": "queue_connections",
    "in use": "in_use",
    "p50": "p50_seconds",
    "p95": "p95_seconds",
    "p99": "p99_seconds",
    "longest": "longest_seconds",
}


def _now(snapshot: Snapshot, interval: Interval | None) -> dict[str, float | None]:
    return {
        "workers": len(snapshot.workers),
        "requests_in_progress": snapshot.in_progress,
        "websockets": snapshot.websockets,
        "in_use": snapshot.in_use,
        "capacity": snapshot.capacity,
        "queue_connections": snapshot.waiting,
        "queue_limit": sum(queue.limit for queue in snapshot.queues) if snapshot.queues else None,
        **_rates(interval),
        "longest_bound_seconds": interval.longest_bound if interval is not None else None,
    }


def _rates(interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return dict.fromkeys(_RATES.values())
    return {name: _rounded(getattr(interval, attribute)) for attribute, name in _RATES.items()}


_RATES = {
    "requests_per_second": "requests_per_second",
    "error_share": "error_share",
    "p50": "p50_seconds",
    "p95": "p95_seconds",
    "p99": "p99_seconds",
    "longest": "longest_seconds",
    "utilisation": "utilisation_share",
}


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


# Kept, because a point is part of sixty answers or more: to encode all of them anew is half of what an answer costs.
@lru_cache(maxsize=1024)
def _point_text(point: Point) -> str:
    return _encode(_point(point))


def _point(point: Point) -> dict[str, float | None]:
    return {
        "at_unix_seconds": round(point.at, 3),
        "interval_seconds": round(point.seconds, 3),
        "workers": point.workers,
        "requests_in_progress": point.in_progress,
        "in_use": point.in_use,
        "queue_connections": point.queue,
        "requests_per_second": point.requests_per_second,
        "error_share": point.error_share,
        "p50_seconds": point.p50,
        "p95_seconds": point.p95,
        "p99_seconds": point.p99,
        "longest_seconds": point.longest,
        "utilisation_share": point.utilisation,
    }


def _worker(worker: Worker, interval: WorkerInterval | None, *, paths: bool) -> dict[str, Any]:
    return {
        "worker_id": worker.worker_id,
        "pid": worker.pid,
        "state": worker.state,
        "requests_in_progress": worker.in_progress,
        "websockets": worker.websockets,
        "capacity": worker.capacity,
        "requests_per_second": None if interval is None else _rounded(interval.requests_per_second),
        "loop_lag_seconds": _rounded(worker.loop_lag),
        "cpu_share": None if interval is None else _rounded(interval.cpu_share),
        "utilisation_share": None if interval is None else _rounded(interval.utilisation),
        "resident_memory_bytes": worker.memory,
        "requests_left": worker.requests_left,
        "uptime_seconds": _rounded(worker.uptime),
        "heartbeat_age_seconds": _rounded(worker.heartbeat_age),
        "oldest_request_seconds": _rounded(worker.oldest_request),
        "running": [_request(request, paths=paths) for request in worker.running],
        "texts": worker_texts(worker, interval, paths=paths),
    }


def _routes(interval: Interval | None) -> dict[str, Any]:
    routes = () if interval is None else interval.routes
    if not worth_a_table(routes):
        return {"routes": [], "routes_left_out": None}
    shown = first_of_each(routes, MOST_ROUTES)
    names = {route.route for route in shown}
    rest = [route for route in routes if route.route not in names]
    return {
        "routes": [
            {
                "route": route.route,
                "p50_seconds": _rounded(route.quantile(0.5)),
                "p95_seconds": _rounded(route.quantile(0.95)),
                **_route(route),
            }
            for route in shown
        ],
        "routes_left_out": {"routes": len(rest), **_route(summed(rest))} if rest else None,
    }


def _route(route: RouteInterval) -> dict[str, Any]:
    return {
        "requests_per_second": _rounded(route.requests_per_second),
        "error_share": _rounded(route.error_share),
        "busy_seconds": _rounded(route.busy),
        "busy_share": _rounded(route.busy_share),
        "cpu_share": _rounded(route.cpu_share),
        "texts": route_texts(route),
    }


def _request(request: OpenRequest, *, paths: bool) -> dict[str, Any]:
    shown = {
        "phase": request.phase,
        "method": request.method,
        "route": request.route,
        "age_seconds": _rounded(request.age),
    }
    return shown | {"path": request.path} if paths else shown
