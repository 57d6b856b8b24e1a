"""Snapshots of the instance whose store is at hand: cheap enough to take one every second beside a busy server.

The whole page costs more than a view needs: a histogram a route, the memory maps of every worker (reading those also
holds up the worker). Here stored values are added up without labels, and a process costs two small reads of /proc.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from promgun.collect.accept_queues import AcceptQueues
from promgun.collect.page import worker_state
from promgun.collect.processes import Figures, ProcessFigures, RisingFigures, boards_with_figures
from promgun.metrics.label_values import ExitCause
from promgun.status.from_page import DURATIONS, EXITS, REQUESTS, WORKER_REQUESTS
from promgun.status.snapshot import Details, OpenRequest, Queue, SlotTotals, Snapshot, Worker
from promgun.status.sums import StoredSums
from promgun.store.board import BoardView, Cell, Role
from promgun.store.master_info import MasterFacts, read_facts
from promgun.system.procfs import Usage

_NS = 1e9
#: A request counts from here on as one that the application has.
_SERVED = ("application", "writing")
Boards = Sequence[tuple[BoardView, bool]]


def living_facts(store: Path, boards: Boards) -> list[MasterFacts]:
    """Return what the living masters of a store say of themselves, the newest last."""
    masters = {(view.slot, view[Cell.PID]) for view, alive in boards if alive and view[Cell.ROLE] == Role.MASTER}
    facts = [fact for fact in read_facts(store) if (fact.slot, fact.pid) in masters]
    return sorted(facts, key=lambda fact: fact.started)


def details_of(boards: Boards, facts: Sequence[MasterFacts], now_ns: int) -> Details:
    """Tell names, pids and running requests from boards that were read at ``now_ns`` (monotonic) and their masters."""
    workers = [view for view, alive in boards if alive and view[Cell.ROLE] == Role.WORKER]
    newest = facts[-1] if facts else None
    return Details(
        name=newest.name if newest else "",
        application=newest.application if newest else "",
        addresses=newest.addresses if newest else (),
        pids={view.slot: view[Cell.PID] for view in workers},
        running={view.slot: open_requests(view, now_ns) for view in workers},
    )


def open_requests(view: BoardView, now_ns: int) -> tuple[OpenRequest, ...]:
    """Return what a board says of running requests, oldest first, without query strings."""
    return tuple(
        OpenRequest(
            phase=request.phase.name.lower(),
            age=request.age(now_ns),
            method=request.method,
            route=request.route,
            path=request.path.partition("?")[0].partition("#")[0],
            client=request.client,
        )
        for request in view.running()
    )


class StoreStatus:
    """Takes snapshots of one store; keep it between them, and use it from one thread at a time."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._sums = StoredSums(
            store, {REQUESTS: "status", DURATIONS: "le", WORKER_REQUESTS: "worker_id", EXITS: "cause"}
        )
        self._figures = _PlainFigures()
        self._rising = RisingFigures()
        self._queues = AcceptQueues()

    def snapshot(self) -> Snapshot:
        """Read the boards and add up the value files; ``up`` is false when no master lives. Never raises."""
        owners = boards_with_figures(self._store, self._figures.read)
        boards = [(view, alive) for view, alive, _ in owners]
        now = time.monotonic_ns()
        facts = living_facts(self._store, boards)
        masters = [view for view, alive in boards if alive and view[Cell.ROLE] == Role.MASTER]
        sums = self._sums.read()
        slots, memory = self._slots(owners, sums[WORKER_REQUESTS])
        details = details_of(boards, facts, now)
        return Snapshot(
            taken=now / _NS,
            at=time.time(),
            up=bool(masters),
            uptime=(now - masters[-1][Cell.CLAIMED]) / _NS if masters else None,
            info=_info(facts),
            target=sum(view[Cell.TARGET] for view in masters),
            workers={
                view.slot: _worker(view, now, memory.get(view.slot), details)
                for view, alive in boards
                if alive and view[Cell.ROLE] == Role.WORKER
            },
            slots=slots,
            requests=sums[REQUESTS],
            durations=_cumulative(sums[DURATIONS]),
            queues=self._accept_queues(facts),
            exits={cause: int(sums[EXITS].get(cause, 0)) for cause in ExitCause},
            details=details,
        )

    def _slots(
        self, owners: Sequence[tuple[BoardView, bool, Figures | None]], requests: dict[str, float]
    ) -> tuple[dict[int, SlotTotals], dict[int, int]]:
        """Return what rises by slot, and the memory of living workers."""
        slots, memory = {}, {}
        self._figures.keep(view[Cell.PID] for view, alive, _ in owners if alive)
        for view, alive, figures in owners:
            if view[Cell.ROLE] != Role.WORKER:
                continue
            if figures is not None and alive:
                memory[view.slot] = figures.resident
            lasting = {"user": view[Cell.CPU_USER_BASE], "system": view[Cell.CPU_SYSTEM_BASE]}
            totals = self._rising.update(view.slot, view[Cell.PID], figures, lasting)
            slots[view.slot] = SlotTotals(
                requests=requests.get(str(view.slot), 0.0),
                busy=self._rising.clamp(view.slot, "busy", view.busy_ns(view.taken)) / _NS,
                cpu=(totals["user"] + totals["system"]) / _NS,
            )
        return slots, memory

    def _accept_queues(self, facts: Sequence[MasterFacts]) -> tuple[Queue, ...]:
        addresses = sorted({address for fact in facts for address in fact.addresses})
        return tuple(
            sorted(
                (Queue(queue.address, queue.waiting, queue.limit) for queue in self._queues.read(addresses)),
                key=lambda queue: queue.listener,
            )
        )


def _info(facts: Sequence[MasterFacts]) -> dict[str, str]:
    if not facts:
        return {}
    newest = facts[-1]
    return {name: getattr(newest, name) for name in ("gunicorn", "promgun", "python", "worker_type")}


def _worker(view: BoardView, now: int, memory: int | None, details: Details) -> Worker:
    running = details.running[view.slot]
    return Worker(
        worker_id=view.slot,
        state=worker_state(view, now),
        pid=view[Cell.PID],
        in_progress=view.in_progress,
        capacity=view[Cell.CAPACITY],
        oldest_request=next((request.age for request in running if request.phase in _SERVED), 0.0),
        heartbeat_age=max(0, now - view[Cell.HEARTBEAT]) / _NS,
        uptime=(now - view[Cell.CLAIMED]) / _NS,
        memory=memory,
        requests_left=max(0, view[Cell.MAX_REQUESTS] - view[Cell.SERVED]) if view[Cell.MAX_REQUESTS] else None,
        running=running,
    )


def _cumulative(buckets: dict[str, float]) -> dict[float, float]:
    """Add up buckets that each count for themselves, as they do in the files."""
    counts = sorted((float(bound), count) for bound, count in buckets.items())
    return dict(zip((bound for bound, _ in counts), accumulate(count for _, count in counts), strict=True))


class _PlainFigures(ProcessFigures):
    """Figures without what would cost more than all the rest of a view."""

    def read(self, pid: int, usage: Usage | None) -> Figures | None:
        """Return CPU times and resident memory; ``None`` when the process is gone."""
        if usage is None:
            return super().read(pid, usage)
        return Figures(
            resident=usage.resident,
            unique=None,
            user=usage.user,
            system=usage.system,
            fds=None,
            threads=usage.threads,
            voluntary=usage.voluntary,
            involuntary=usage.involuntary,
        )
