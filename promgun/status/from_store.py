"""A snapshot from one reading of a store: cheap enough to take one every second beside a busy server.

The whole page costs more than a view needs: a histogram a route, the memory maps of every worker (reading those also
holds up the worker). Here stored values are added up by one label each, and a process costs two small reads of /proc.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

from promgun.collect.reading import Reading
from promgun.collect.slot_owners import SlotOwner, loop_lag, worker_state
from promgun.metrics.families.master import INFO, WORKER_EXITS
from promgun.metrics.families.requests import REQUESTS
from promgun.metrics.families.workers import WORKER_REQUESTS
from promgun.metrics.fine_durations import FINE_DURATIONS
from promgun.metrics.label_values import ExitCause
from promgun.status.snapshot import Details, OpenRequest, Queue, SlotTotals, Snapshot, Worker
from promgun.store.board import Cell
from promgun.store.request_table import RunningRequest

_NS = 1e9


def snapshot_of(reading: Reading) -> Snapshot:
    """Return what a reading says; ``up`` is false when no master lives."""
    workers = {worker.slot: _worker(worker, reading.taken_ns) for worker in reading.workers}
    master = reading.master
    facts = master.facts if master is not None else None
    return Snapshot(
        taken=reading.taken_ns / _NS,
        at=reading.at,
        up=master is not None,
        uptime=master.owner.uptime(reading.taken_ns) if master is not None else None,
        info={name: getattr(facts, name) for name in INFO.labels} if facts is not None else {},
        target=reading.workers_wanted,
        workers=workers,
        slots=_slots(reading),
        requests=reading.sums[REQUESTS.name],
        durations=_cumulative(reading.sums[FINE_DURATIONS]),
        queues=tuple(Queue(queue.address, queue.waiting, queue.limit) for queue in reading.queues),
        exits={cause: int(reading.sums[WORKER_EXITS.name].get(cause, 0)) for cause in ExitCause},
        details=Details(
            name=facts.name if facts is not None else "",
            application=facts.application if facts is not None else "",
            addresses=facts.addresses if facts is not None else (),
            pids={slot: worker.pid for slot, worker in workers.items() if worker.pid is not None},
            running={slot: worker.running for slot, worker in workers.items()},
        ),
        routes=reading.routes,
    )


def open_requests(running: list[RunningRequest], now_ns: int) -> tuple[OpenRequest, ...]:
    """Return running requests as a status shows them, in the same order, without query strings."""
    return tuple(
        OpenRequest(
            phase=request.phase.name.lower(),
            age=request.age(now_ns),
            method=request.method,
            route=request.route,
            path=request.path.partition("?")[0].partition("#")[0],
            client=request.client,
        )
        for request in running
    )


def _worker(worker: SlotOwner, now_ns: int) -> Worker:
    board = worker.board
    running = board.running()
    return Worker(
        worker_id=worker.slot,
        state=worker_state(board, now_ns),
        pid=board[Cell.PID],
        in_progress=board.in_progress,
        websockets=max(0, board[Cell.WEBSOCKETS] - 1),
        capacity=board[Cell.CAPACITY],
        oldest_request=worker.oldest_request(running, now_ns),
        heartbeat_age=worker.heartbeat_age(now_ns),
        uptime=worker.uptime(now_ns),
        memory=worker.figures.resident if worker.figures is not None else None,
        requests_left=worker.requests_left,
        running=open_requests(running, now_ns),
        loop_lag=loop_lag(board, now_ns) if board[Cell.LOOP_WINDOW] else None,
    )


def _slots(reading: Reading) -> dict[int, SlotTotals]:
    requests = reading.sums[WORKER_REQUESTS.name]
    return {
        slot: SlotTotals(
            requests=requests.get(str(slot), 0.0),
            busy=totals.busy / _NS,
            cpu=(totals.user + totals.system) / _NS,
        )
        for slot, totals in reading.totals.items()
    }


def _cumulative(buckets: dict[str, float]) -> dict[float, float]:
    """Add up buckets that each count for themselves, as they do in the files."""
    bounds = _bounds(tuple(buckets))
    if bounds is None:
        counts = sorted((float(text), count) for text, count in buckets.items())
        return dict(zip((bound for bound, _ in counts), accumulate(count for _, count in counts), strict=True))
    return dict(zip(bounds, accumulate(buckets.values()), strict=True))


@lru_cache(maxsize=8)
def _bounds(texts: tuple[str, ...]) -> tuple[float, ...] | None:
    """Return the bounds that such texts name, if they rise; those of two versions of promgun may be mixed."""
    bounds = tuple(map(float, texts))
    return bounds if list(bounds) == sorted(bounds) else None
