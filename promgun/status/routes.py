"""The table of routes: what each did in an interval, which stand first, and how their figures read.

Numbers are made for every route, texts only for those that are shown.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nlargest
from itertools import chain, islice
from operator import attrgetter, sub
from types import MappingProxyType
from typing import NamedTuple

from promgun.collect.route_sums import RouteTotals
from promgun.status import texts
from promgun.status.quantiles import quantile, quantile_text

#: What stands for the route of requests without one.
NO_ROUTE = "(no route)"
#: Bounds and counts of no request.
_NO_DURATIONS = ((math.inf,), (0.0,))
_TOTAL_BUSY = attrgetter("total_busy")


class RouteInterval(NamedTuple):
    """A route in an interval.

    ``busy`` is the seconds that its requests took, ``busy_share`` their share of what all requests took. ``cpu_share``
    is in CPUs, ``None`` where it is not counted. ``counts`` are cumulative, by bound in seconds. ``total_busy`` is the
    seconds since the start: it orders the routes that nobody asked for.
    """

    route: str
    requests: float
    errors: float
    requests_per_second: float
    busy: float
    busy_share: float
    cpu_share: float | None
    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total_busy: float

    @property
    def error_share(self) -> float | None:
        """The share of 5xx answers; ``None`` without an answer."""
        return self.errors / self.requests if self.requests else None

    def bound(self, q: float) -> float:
        """Return the bound that a share ``q`` of the requests does not exceed, 0 without a request; it costs little."""
        rank = q * self.counts[-1]
        return self.bounds[bisect_left(self.counts, rank)] if rank > 0 else 0.0

    def quantile(self, q: float) -> float | None:
        """Return an estimate of the time that a share ``q`` of the requests took at most; ``None`` without one."""
        return quantile(q, dict(zip(self.bounds, self.counts, strict=True)))

    def quantile_text(self, q: float) -> str:
        """Return the bounds of that time: ``1–2.5 s``."""  # noqa: RUF002 - a dash
        return quantile_text(q, dict(zip(self.bounds, self.counts, strict=True)))


def routes_between(
    earlier: Mapping[str, RouteTotals], later: Mapping[str, RouteTotals], seconds: float
) -> tuple[RouteInterval, ...]:
    """Return what each route did in ``seconds``; a counter that sank was reset, and counts as a whole."""
    increases = {
        route: _increase(before, now) for route, now in later.items() if (before := earlier.get(route)) is not now
    }
    whole = sum(increase.busy for increase in increases.values()) or 1.0
    found = []
    for route, now in later.items():
        increase = increases.get(route)
        if increase is None:
            # Most routes: nothing happened, and nothing is computed.
            cpu = None if now.cpu is None else 0.0
            found.append(RouteInterval(route, 0.0, 0.0, 0.0, 0.0, 0.0, cpu, *_NO_DURATIONS, now.busy))
            continue
        found.append(
            RouteInterval(
                route,
                increase.requests,
                increase.errors,
                increase.requests / seconds,
                increase.busy,
                increase.busy / whole,
                None if increase.cpu is None else increase.cpu / seconds,
                increase.bounds,
                increase.counts,
                now.busy,
            )
        )
    return tuple(found)


def _increase(earlier: RouteTotals | None, later: RouteTotals) -> RouteTotals:
    if earlier is None or earlier.bounds != later.bounds or later.requests < earlier.requests:
        return later
    return RouteTotals(
        later.requests - earlier.requests,
        max(0.0, later.errors - earlier.errors),
        max(0.0, later.busy - earlier.busy),
        None if later.cpu is None else max(0.0, later.cpu - (earlier.cpu or 0.0)),
        later.bounds,
        tuple(map(sub, later.counts, earlier.counts)),
    )


#: By name, what the routes can be sorted by, the largest first.
ORDERS: Mapping[str, Callable[[RouteInterval], float]] = MappingProxyType(
    {
        "busy": attrgetter("busy"),
        "requests": attrgetter("requests"),
        "errors": lambda route: route.error_share or 0.0,
        "p95": lambda route: route.bound(0.95),
        "cpu": lambda route: route.cpu_share or 0.0,
    }
)


def ranked(routes: Iterable[RouteInterval], order: str, most: int | None = None) -> list[RouteInterval]:
    """Return the first ``most`` routes by ``order``, then those without a request, by their time since the start."""
    key = ORDERS[order]
    active: list[RouteInterval] = []
    idle: list[RouteInterval] = []
    for route in routes:
        (active if route.requests else idle).append(route)
    active.sort(key=lambda route: (key(route), route.busy, route.total_busy), reverse=True)
    room = len(idle) if most is None else max(0, most - len(active))
    return [*active, *nlargest(room, idle, key=_TOTAL_BUSY)][:most]


def first_of_each(routes: Iterable[RouteInterval], most: int) -> list[RouteInterval]:
    """Return ``most`` routes at most, the busiest first: the first ones of each order in turns."""
    found = list(routes)
    if len(found) > most:
        firsts = [ranked(found, order, most) for order in ORDERS]
        chosen: dict[str, RouteInterval] = {}
        for route in chain.from_iterable(zip(*firsts, strict=True)):
            chosen.setdefault(route.route, route)
        found = list(islice(chosen.values(), most))
    return ranked(found, "busy")


def summed(routes: Sequence[RouteInterval]) -> RouteInterval:
    """Return several routes as one, without its durations."""
    cpus = [route.cpu_share for route in routes if route.cpu_share is not None]
    return RouteInterval(
        f"{len(routes)} more",
        sum(route.requests for route in routes),
        sum(route.errors for route in routes),
        sum(route.requests_per_second for route in routes),
        sum(route.busy for route in routes),
        sum(route.busy_share for route in routes),
        sum(cpus) if cpus else None,
        *_NO_DURATIONS,
        sum(route.total_busy for route in routes),
    )


def worth_a_table(routes: Sequence[RouteInterval]) -> bool:
    """Whether there is anything by route to show: an application whose routes nobody knows has one, without a name."""
    return any(route.route for route in routes)


def route_texts(route: RouteInterval) -> dict[str, str]:
    """Return the cells of a route's row, as text."""
    return {
        "route": route.route or NO_ROUTE,
        "rate": texts.rate(route.requests_per_second),
        "errors": texts.share(route.error_share),
        "p50": route.quantile_text(0.5),
        "p95": route.quantile_text(0.95),
        "busy": texts.share(route.busy_share),
        "cpu": texts.cpu(route.cpu_share),
    }
