"""An instance at a moment, as the terminal view and the status page show it: data without I/O.

``from_page`` makes a snapshot of a page of metrics, ``from_store`` one of a reading of the store, which is far cheaper,
and ``source`` knows which to ask; ``interval`` compares two, ``history`` keeps the last minute, ``json`` writes all of
it as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from promgun.collect.route_sums import RouteTotals


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A request that is being served: ``phase`` is reading, queued, application or writing, ``age`` in seconds.

    ``path`` has no query string, and every text is harmless to print; while the head is read they are empty.
    """

    phase: str
    age: float
    method: str = ""
    route: str = ""
    path: str = ""
    client: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What no page carries: names, and by slot the pid and the running requests, oldest first."""

    name: str = ""
    application: str = ""
    addresses: tuple[str, ...] = ()
    pids: Mapping[int, int] = field(default_factory=dict)
    running: Mapping[int, tuple[OpenRequest, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A living worker; ``None`` is what the page does not tell (no ``--max-requests``, no /proc, no pid)."""

    worker_id: int
    state: str
    pid: int | None = None
    in_progress: int = 0
    websockets: int = 0
    capacity: int = 0
    oldest_request: float = 0.0
    heartbeat_age: float = 0.0
    uptime: float = 0.0
    memory: int | None = None
    requests_left: int | None = None
    running: tuple[OpenRequest, ...] = ()
    #: seconds; ``None`` where the worker has no event loop
    loop_lag: float | None = None

    @property
    def in_use(self) -> int:
        """How much of the capacity is taken: by running requests and by open websockets."""
        return self.in_progress + self.websockets


@dataclass(frozen=True, slots=True)
class Queue:
    """An accept queue: the listener's address, connections waiting now, and how many it holds at most."""

    listener: str
    connections: int
    limit: int


@dataclass(frozen=True, slots=True)
class SlotTotals:
    """A slot's counters over all its owners, which only rise: requests, busy seconds, seconds of CPU."""

    requests: float = 0.0
    busy: float = 0.0
    cpu: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An instance at one moment.

    ``taken`` is the observer's monotonic clock and ``at`` Unix time; ``uptime`` is the master's in seconds, by the
    server's own clock. ``requests`` are counted by status, ``durations`` are cumulative by upper bound in seconds,
    ``routes`` are what was counted by route since the start.
    """

    taken: float
    at: float
    up: bool
    uptime: float | None
    info: Mapping[str, str]
    target: int
    workers: Mapping[int, Worker]
    slots: Mapping[int, SlotTotals]
    requests: Mapping[str, float]
    durations: Mapping[float, float]
    queues: tuple[Queue, ...]
    exits: Mapping[str, int]
    details: Details
    routes: Mapping[str, RouteTotals] = field(default_factory=dict)

    @property
    def states(self) -> dict[str, int]:
        """How many living workers are in each state that any is in."""
        states: dict[str, int] = {}
        for worker in self.workers.values():
            states[worker.state] = states.get(worker.state, 0) + 1
        return states

    @property
    def in_progress(self) -> int:
        """Requests that are being served now."""
        return sum(worker.in_progress for worker in self.workers.values())

    @property
    def websockets(self) -> int:
        """Websockets that are open now."""
        return sum(worker.websockets for worker in self.workers.values())

    @property
    def in_use(self) -> int:
        """How much of the capacity is taken."""
        return sum(worker.in_use for worker in self.workers.values())

    @property
    def capacity(self) -> int:
        """Requests that the living workers can serve at once."""
        return sum(worker.capacity for worker in self.workers.values())

    @property
    def waiting(self) -> int | None:
        """Connections in all accept queues; ``None`` where the kernel does not tell."""
        return sum(queue.connections for queue in self.queues) if self.queues else None
