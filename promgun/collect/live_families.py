"""The families that are computed when the page is made, not stored: one function for each group of the catalogue.

A function yields rows: the name of a family, the values of its labels in the catalogue's order, the value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping

from promgun.collect.accept_queues import read_overflows
from promgun.collect.reading import Reading, SlotTotals
from promgun.collect.slot_owners import SlotOwner, worker_state
from promgun.metrics.catalog import BY_NAME
from promgun.metrics.label_sets import has_free_labels
from promgun.metrics.label_values import StoreErrorReason, WorkerCount, WorkerState
from promgun.metrics.spec import MetricSpec
from promgun.store.board import Cell

_NS = 1e9
_GENERATIONS = (Cell.GC_COLLECTIONS_0, Cell.GC_COLLECTIONS_1, Cell.GC_COLLECTIONS_2)
_ERROR_CELLS = {
    StoreErrorReason.NO_SPACE: Cell.ERRORS_NO_SPACE,
    StoreErrorReason.CORRUPT: Cell.ERRORS_CORRUPT,
    StoreErrorReason.PERMISSION: Cell.ERRORS_PERMISSION,
}

Row = tuple[str, tuple[str, ...], float]
#: Values of a family by those of its labels, by the name in the catalogue.
Rows = Mapping[str, Mapping[tuple[str, ...], float]]


def request_rows(_: Reading) -> Iterator[Row]:
    """Yield nothing: whatever is told of requests that have ended is stored."""
    yield from ()


def worker_rows(reading: Reading) -> Iterator[Row]:
    """Yield what each slot's workers have used, then the state of each living worker."""
    for owner in reading.owners:
        if owner.slot in reading.totals:
            yield from _slot(owner, reading.totals[owner.slot])
    for worker in reading.workers:
        yield from _worker(worker, reading.taken_ns)


def _slot(owner: SlotOwner, totals: SlotTotals) -> Iterator[Row]:
    board = owner.board
    worker_id = str(owner.slot)
    yield "gunicorn_worker_busy_seconds_total", (worker_id,), totals.busy / _NS
    yield "gunicorn_worker_cpu_seconds_total", (worker_id, "user"), totals.user / _NS
    yield "gunicorn_worker_cpu_seconds_total", (worker_id, "system"), totals.system / _NS
    yield "gunicorn_worker_context_switches_total", (worker_id, "voluntary"), float(totals.voluntary)
    yield "gunicorn_worker_context_switches_total", (worker_id, "involuntary"), float(totals.involuntary)
    if sys.platform == "linux":
        yield "gunicorn_worker_cpu_wait_seconds_total", (worker_id,), board[Cell.CPU_WAIT] / _NS
    for generation, cell in enumerate(_GENERATIONS):
        yield "gunicorn_worker_gc_collections_total", (worker_id, str(generation)), float(board[cell])
    yield "gunicorn_worker_gc_pause_seconds_total", (worker_id,), board[Cell.GC_PAUSE] / _NS


def _worker(worker: SlotOwner, now_ns: int) -> Iterator[Row]:
    board, figures = worker.board, worker.figures
    labels = (str(worker.slot),)
    yield "gunicorn_worker_requests_in_progress", labels, float(board.in_progress)
    yield "gunicorn_worker_capacity", labels, float(board[Cell.CAPACITY])
    yield "gunicorn_worker_oldest_request_seconds", labels, worker.oldest_request(board.running(), now_ns)
    yield "gunicorn_worker_heartbeat_age_seconds", labels, worker.heartbeat_age(now_ns)
    state = worker_state(board, now_ns)
    for name in WorkerState:
        yield "gunicorn_worker_state", (*labels, name), float(name == state)
    yield "gunicorn_worker_uptime_seconds", labels, worker.uptime(now_ns)
    if worker.requests_left is not None:
        yield "gunicorn_worker_requests_left", labels, float(worker.requests_left)
    if figures is None:
        return
    yield "gunicorn_worker_resident_memory_bytes", labels, float(figures.resident)
    yield "gunicorn_worker_threads", labels, float(figures.threads)
    # Of a worker that changed user the kernel tells neither to others of its user (proc(5)): it writes them itself.
    unique = figures.unique if figures.unique is not None else board[Cell.UNIQUE_MEMORY]
    if unique:
        yield "gunicorn_worker_unique_memory_bytes", labels, float(unique)
    fds = figures.fds if figures.fds is not None else board[Cell.OPEN_FDS]
    if fds:
        yield "gunicorn_worker_open_fds", labels, float(fds)


def master_rows(reading: Reading) -> Iterator[Row]:
    """Yield whether a master lives, how many workers there are, and what the newest master tells."""
    yield "gunicorn_up", (), float(bool(reading.masters))
    yield "gunicorn_workers", (WorkerCount.TARGET,), float(reading.workers_wanted)
    yield "gunicorn_workers", (WorkerCount.ALIVE,), float(len(reading.workers))
    yield "gunicorn_workers", (WorkerCount.BOOTED,), float(sum(worker.has_booted for worker in reading.workers))
    if reading.master is None:
        return
    owner, facts = reading.master.owner, reading.master.facts
    if facts is not None:
        yield "gunicorn_info", (facts.gunicorn, facts.promgun, facts.python, facts.worker_type), 1.0
    if owner.board[Cell.LAST_RELOAD]:
        yield "gunicorn_last_reload_timestamp_seconds", (), float(owner.board[Cell.LAST_RELOAD])
    yield "gunicorn_master_uptime_seconds", (), owner.uptime(reading.taken_ns)
    if owner.figures is not None:
        yield "gunicorn_master_resident_memory_bytes", (), float(owner.figures.resident)
        yield "gunicorn_master_cpu_seconds_total", ("user",), owner.figures.user / _NS
        yield "gunicorn_master_cpu_seconds_total", ("system",), owner.figures.system / _NS


def listener_rows(reading: Reading) -> Iterator[Row]:
    """Yield the accept queues, and what the network namespace lost: nothing where the kernel does not tell."""
    for queue in reading.queues:
        yield "gunicorn_listener_queue_connections", (queue.address,), float(queue.waiting)
        yield "gunicorn_listener_queue_limit", (queue.address,), float(queue.limit)
    overflows = read_overflows() if reading.addresses else {}
    if overflows:
        yield "gunicorn_listen_overflows_total", (), overflows["overflows"]
        yield "gunicorn_listen_drops_total", (), overflows["drops"]


def promgun_rows(reading: Reading) -> Iterator[Row]:
    """Yield the size of the store and what could not be stored or read; the duration comes when the page is whole."""
    errors = {reason: sum(owner.board[cell] for owner in reading.owners) for reason, cell in _ERROR_CELLS.items()}
    errors[StoreErrorReason.CORRUPT] += reading.values.corrupt
    for reason, count in errors.items():
        yield "promgun_store_errors_total", (reason,), float(count)
    yield "promgun_store_bytes", (), float(reading.values.size)
    yield "promgun_store_files", (), float(reading.values.files)
    yield "promgun_store_slots", (), float(len(reading.owners))


#: What computes the rows of each group of the catalogue.
GROUPS: Mapping[str, Callable[[Reading], Iterator[Row]]] = {
    "requests": request_rows,
    "workers": worker_rows,
    "master": master_rows,
    "listeners": listener_rows,
    "promgun": promgun_rows,
}


def computed_rows(reading: Reading) -> Rows:
    """Return the rows of all groups, by family; raises ``KeyError`` for a name that is not in the catalogue."""
    rows: dict[str, dict[tuple[str, ...], float]] = {}
    for compute in GROUPS.values():
        for name, values, value in compute(reading):
            rows.setdefault(BY_NAME[name].name, {})[values] = value
    return rows


def zero_sets(spec: MetricSpec) -> list[tuple[str, ...]]:
    """Return the label sets of a counter that are on the page from the start; none where values are not known
    beforehand.
    """
    if spec.name == "promgun_label_sets_folded_total":
        return [(name,) for name in FOLDABLE]
    if spec.group == "listeners":
        # Absent, not 0, where the system does not tell.
        return []
    sets: list[tuple[str, ...]] = [()]
    for label in spec.labels:
        values = spec.closed.get(label)
        if values is None:
            return []
        sets = [(*head, value) for head in sets for value in values]
    return sets


#: Counters whose label sets may be folded.
FOLDABLE = tuple(spec.name for spec in BY_NAME.values() if spec.kind == "counter" and has_free_labels(spec.labels))
