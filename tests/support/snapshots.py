"""Snapshots of a made-up instance under load."""

from __future__ import annotations

import math
from dataclasses import replace

from promgun.collect.route_sums import RouteTotals
from promgun.status.history import History
from promgun.status.snapshot import Details, OpenRequest, Queue, SlotTotals, Snapshot, Worker


def request(path: str, age: float, phase: str = "application") -> OpenRequest:
    return OpenRequest(phase=phase, age=age, method="GET", path=path)


def worker(slot: int, **changes: object) -> Worker:
    state = ("idle", "busy", "hung")[slot % 3]
    base = Worker(
        worker_id=slot,
        state=state,
        pid=4000 + slot,
        in_progress=slot % 3,
        capacity=4,
        memory=25_000_000,
        running=(request("/страница/日本語/" + "x" * 8 * slot, 3.5 * slot),) if state == "busy" else (),
    )
    return replace(base, **changes)  # type: ignore[arg-type] # the fields of a worker


def route(number: int, second: float) -> RouteTotals:
    """Return what a route has counted: those of higher numbers are busier; every third is idle but for the start."""
    if number % 3 == 2:
        second = min(second, 5.0)
    answered = second * (number + 1)
    return RouteTotals(
        requests=answered,
        errors=answered / 10 if number % 5 == 0 else 0.0,
        busy=answered / 5,
        cpu=answered / 50,
        bounds=(0.1, 1.0, math.inf),
        counts=(answered / 2, answered, answered),
    )


def routed(count: int, second: float) -> dict[str, RouteTotals]:
    """Return so many routes; the first has no name, as of requests that matched none."""
    return {f"/route/{number}/<id>" if number else "": route(number, second) for number in range(count)}


def snapshot(workers: dict[int, Worker], second: float, killed: int = 0, routes: int = 0) -> Snapshot:
    return Snapshot(
        taken=second,
        at=1_700_000_000 + second,
        up=True,
        uptime=100 + second,
        info={"worker_type": "gthread"},
        target=len(workers),
        workers=workers,
        slots={slot: SlotTotals(second * 10 * slot, second, second / 2) for slot in workers},
        requests={"200": second * 99, "500": second},
        durations={0.1: second * 50, 1.0: second * 99, 5.0: second * 100, math.inf: second * 100},
        queues=(Queue("http://127.0.0.1:80", 3, 2048),),
        exits={"killed": killed, "timeout": 1, "oom": 0},
        details=Details(name="shop", application="shop.wsgi:app"),
        routes=routed(routes, second),
    )


def watched(count: int = 4, seconds: int = 70, *, routes: int = 0, **changes: object) -> tuple[Snapshot, History]:
    """Return the last snapshot, and the history, of so many workers watched for so long; one is killed every 10 s."""
    workers = {slot: worker(slot, **changes) for slot in range(1, count + 1)}
    history = History()
    last = snapshot(workers, 0, routes=routes)
    history.add(last)
    for second in range(1, seconds + 1):
        last = snapshot(workers, second, second // 10, routes)
        history.add(last)
    return last, history
