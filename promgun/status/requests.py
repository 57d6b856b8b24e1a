"""What every worker of the running instances is doing now: read from scoreboards, so no worker can hold it up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from promgun.collect.page import worker_state
from promgun.instances.registry import Run
from promgun.status.from_store import open_requests
from promgun.status.snapshot import OpenRequest
from promgun.store.board import Cell, Role
from promgun.store.slots import read_boards


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNow:
    """A living worker of an instance; of ``in_progress`` requests at most 64 are ``running`` ones that are known."""

    instance: str
    worker_id: int
    pid: int
    state: str
    in_progress: int
    running: tuple[OpenRequest, ...]


def workers_now(runs: Iterable[Run]) -> Iterator[WorkerNow]:
    """Yield the workers of each instance in the order of their slots; never waits for any of them."""
    for run in runs:
        for view, alive in read_boards(run.store):
            if alive and view[Cell.ROLE] == Role.WORKER:
                now = time.monotonic_ns()
                yield WorkerNow(
                    instance=run.name,
                    worker_id=view.slot,
                    pid=view[Cell.PID],
                    state=worker_state(view, now),
                    in_progress=view.in_progress,
                    running=open_requests(view, now),
                )
