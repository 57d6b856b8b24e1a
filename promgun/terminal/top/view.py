"""The data that a frame of the terminal view is drawn from, and the orders of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from promgun.status.figures import shown_age
from promgun.status.history import ExitEvent, History, Point
from promgun.status.interval import Interval, WorkerInterval
from promgun.status.routes import RouteInterval, worth_a_table
from promgun.status.snapshot import Snapshot, Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An instance: its newest snapshot, the last interval, the minute before, and the exits of workers."""

    name: str
    snapshot: Snapshot
    interval: Interval | None = None
    points: tuple[Point, ...] = ()
    window: float = 60.0
    exits: Mapping[str, int]
    events: tuple[ExitEvent, ...] = ()

    @classmethod
    def of(cls, name: str, snapshot: Snapshot, history: History) -> View:
        """Return the view of ``snapshot``, with what ``history`` holds now."""
        return cls(
            name=name,
            snapshot=snapshot,
            interval=history.interval,
            points=history.points,
            window=history.seconds,
            exits=history.exits,
            events=history.events,
        )

    @property
    def routes(self) -> tuple[RouteInterval, ...]:
        """What the routes did in the last interval; empty where none is known by name."""
        routes = self.interval.routes if self.interval is not None else ()
        return routes if worth_a_table(routes) else ()

    def rows(self, order: str) -> list[Row]:
        """Return the living workers, sorted by the key that ``order`` names in ``ORDERS``, the largest first."""
        found = self.interval.workers if self.interval is not None else {}
        rows = [Row(worker, found.get(slot)) for slot, worker in self.snapshot.workers.items()]
        return sorted(rows, key=lambda row: (-ORDERS[order](row), row.worker.worker_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What the user chose by keys, and ``away``: why there is no new snapshot, empty while there is.

    ``every`` is the interval in seconds, ``order`` that of the workers, ``tables`` which tables are shown.
    """

    every: float
    order: str = "slot"
    route_order: str = "busy"
    tables: str = "both"
    paused: bool = False
    help: bool = False
    away: str = ""


class Row(NamedTuple):
    """A worker in the table; ``interval`` is ``None`` until there are two snapshots of it."""

    worker: Worker
    interval: WorkerInterval | None

    @property
    def age(self) -> float | None:
        """The age of the request that the row shows."""
        return shown_age(self.worker)


ORDERS: Mapping[str, Callable[[Row], float]] = {
    "slot": lambda _row: 0.0,
    "requests": lambda row: row.interval.requests_per_second if row.interval else 0.0,
    "age": lambda row: row.age or 0.0,
    "in use": lambda row: row.worker.in_use,
    "cpu": lambda row: row.interval.cpu_share if row.interval else 0.0,
    "memory": lambda row: row.worker.memory or 0,
}

#: What the key ``t`` changes between; routes are shown only where there are any.
TABLES = ("both", "routes", "workers")
