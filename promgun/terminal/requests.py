"""The running requests of all workers, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from promgun.status.texts import age
from promgun.terminal.output import Output

if TYPE_CHECKING:
    from promgun.status.requests import WorkerNow
    from promgun.status.snapshot import OpenRequest

_COLUMNS = ("INSTANCE", "SLOT", "PID", "STATE", "PHASE", "METHOD", "ROUTE", "PATH", "CLIENT", "AGE")


def render_requests(workers: Iterable[WorkerNow], form: str = "table", output: Output | None = None) -> str:
    """Return one row for each running request, oldest first, and one for each worker without any.

    JSON is a list of ``{instance, worker_id, pid, state, requests_in_progress, phase, method, route, path, client,
    age_seconds}``; the last six are null for a worker that has no request.
    """
    if form == "json":
        page = [item for worker in workers for item in _objects(worker)]
        return json.dumps(page, indent=2, ensure_ascii=False) + "\n"
    from promgun.terminal.tables import draw  # noqa: PLC0415 - rich is for tables only

    return draw(_COLUMNS, (row for worker in workers for row in _rows(worker)), output)


def _rows(worker: WorkerNow) -> Iterator[tuple[str, ...]]:
    own_cells = (worker.instance, str(worker.worker_id), str(worker.pid), worker.state)
    for request in worker.running:
        what = request.phase, request.method, request.route, request.path, request.client
        yield (*own_cells, *what, age(request.age))
    more = worker.in_progress - len(worker.running)
    if more > 0:
        yield (*own_cells, "", "", "", f"({more} more)", "", "")
    elif not worker.running:
        yield (*own_cells, "", "", "", "", "", "")


def _objects(worker: WorkerNow) -> Iterator[dict[str, object]]:
    requests: tuple[OpenRequest | None, ...] = worker.running or (None,)
    for request in requests:
        yield {
            "instance": worker.instance,
            "worker_id": worker.worker_id,
            "pid": worker.pid,
            "state": worker.state,
            "requests_in_progress": worker.in_progress,
            "phase": request.phase if request else None,
            "method": request.method if request else None,
            "route": request.route if request else None,
            "path": request.path if request else None,
            "client": request.client if request else None,
            "age_seconds": round(request.age, 3) if request else None,
        }
