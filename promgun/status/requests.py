"""What every worker of the running instances is doing now: read from scoreboards, so no worker can hold it up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from promgun.collect.slot_owners import SlotOwner, living_owners, worker_state
from promgun.instances.entries import Run
from promgun.instances.reading_child import ask_once
from promgun.status.from_store import open_requests
from promgun.status.snapshot import OpenRequest
from promgun.store.board import Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNow:
    """A living worker of an instance; of its ``in_progress`` requests at most 64 are described in ``running``."""

    instance: str
    worker_id: int
    pid: int
    state: str
    in_progress: int
    running: tuple[OpenRequest, ...]


def workers_now(runs: Iterable[Run]) -> Iterator[WorkerNow]:
    """Yield the workers of each instance in the order of their slots; never waits for any of them.

    Raises ``StoreError`` when a child that reads for root does not answer.
    """
    for run in runs:
        yield from ask_once(run.store, tuple[WorkerNow, ...], partial(_workers_of, run))


def _workers_of(run: Run) -> tuple[WorkerNow, ...]:
    return tuple(_worker_now(run.name, worker) for worker in living_owners(run.store) if worker.is_worker)


def _worker_now(instance: str, worker: SlotOwner) -> WorkerNow:
    board, now = worker.board, time.monotonic_ns()
    return WorkerNow(
        instance=instance,
        worker_id=worker.slot,
        pid=board[Cell.PID],
        state=worker_state(board, now),
        in_progress=board.in_progress,
        running=open_requests(board.running(), now),
    )
