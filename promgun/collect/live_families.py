"""The families that are computed for each page, not stored: one function for each group of the catalogue.

A function yields rows: a family, the values of its labels in the catalogue's order, the value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping

from promgun.collect.accept_queues import read_overflows
from promgun.collect.reading import Reading, SlotTotals
from promgun.collect.slot_owners import SlotOwner, loop_lag, worker_state
from promgun.metrics.catalog import CATALOG
from promgun.metrics.families import listeners, master, promgun, requests, websockets, workers
from promgun.metrics.label_sets import has_free_labels
from promgun.metrics.label_values import CpuMode, Generation, StoreErrorReason, SwitchKind, WorkerCount, WorkerState
from promgun.metrics.spec import CounterFamily, GaugeFamily, Labels, MetricSpec
from promgun.store.board import Cell

_NS = 1e9
_GENERATION_CELLS = {
    Generation.YOUNGEST: Cell.GC_COLLECTIONS_0,
    Generation.MIDDLE: Cell.GC_COLLECTIONS_1,
    Generation.OLDEST: Cell.GC_COLLECTIONS_2,
}
_ERROR_CELLS = {
    StoreErrorReason.NO_SPACE: Cell.ERRORS_NO_SPACE,
    StoreErrorReason.CORRUPT: Cell.ERRORS_CORRUPT,
    StoreErrorReason.VANISHED: Cell.ERRORS_VANISHED,
    StoreErrorReason.PERMISSION: Cell.ERRORS_PERMISSION,
}

Row = tuple[MetricSpec, tuple[str, ...], float]
#: The values of each family by those of its labels.
Rows = Mapping[MetricSpec, Mapping[tuple[str, ...], float]]


def row(family: CounterFamily[Labels] | GaugeFamily[Labels], values: Labels, value: float) -> Row:
    """Return a row whose label values have the types that the family wants."""
    return family, values, value


def request_rows(_: Reading) -> Iterator[Row]:
    """Yield nothing: all families of requests are stored."""
    yield from ()


def websocket_rows(reading: Reading) -> Iterator[Row]:
    """Yield how many websockets are open in each living worker that may have some."""
    for worker in reading.workers:
        known = worker.board[Cell.WEBSOCKETS]
        if known:
            yield row(websockets.WEBSOCKETS_OPEN, (str(worker.slot),), float(max(0, known - 1)))


def worker_rows(reading: Reading) -> Iterator[Row]:
    """Yield the counters of each slot, then the gauges of each living worker."""
    requests = reading.values.by_slot[workers.WORKER_REQUESTS.name]
    for owner in reading.owners:
        if owner.slot in reading.totals:
            yield from _slot(owner, reading.totals[owner.slot], requests)
    for worker in reading.workers:
        yield from _worker(worker, reading)
    yield from _loops(reading)


def _slot(owner: SlotOwner, totals: SlotTotals, requests: Mapping[str, float]) -> Iterator[Row]:
    board = owner.board
    worker_id = str(owner.slot)
    yield row(workers.WORKER_REQUESTS, (worker_id,), requests.get(worker_id, 0.0))
    yield row(workers.WORKER_BUSY_SECONDS, (worker_id,), totals.busy / _NS)
    yield row(workers.WORKER_CPU_SECONDS, (worker_id, CpuMode.USER), totals.user / _NS)
    yield row(workers.WORKER_CPU_SECONDS, (worker_id, CpuMode.SYSTEM), totals.system / _NS)
    yield row(workers.WORKER_CONTEXT_SWITCHES, (worker_id, SwitchKind.VOLUNTARY), float(totals.voluntary))
    yield row(workers.WORKER_CONTEXT_SWITCHES, (worker_id, SwitchKind.INVOLUNTARY), float(totals.involuntary))
    if sys.platform == "linux":
        yield row(workers.WORKER_CPU_WAIT_SECONDS, (worker_id,), board[Cell.CPU_WAIT] / _NS)
    for generation, cell in _GENERATION_CELLS.items():
        yield row(workers.WORKER_GC_COLLECTIONS, (worker_id, generation), float(board[cell]))
    yield row(workers.WORKER_GC_PAUSE_SECONDS, (worker_id,), board[Cell.GC_PAUSE] / _NS)


def _worker(worker: SlotOwner, reading: Reading) -> Iterator[Row]:
    board, figures, now_ns = worker.board, worker.figures, reading.taken_ns
    labels = (str(worker.slot),)
    yield row(workers.WORKER_REQUESTS_IN_PROGRESS, labels, float(board.in_progress))
    yield row(workers.WORKER_CAPACITY, labels, float(board[Cell.CAPACITY]))
    yield row(workers.WORKER_OLDEST_REQUEST_SECONDS, labels, worker.oldest_request(board.running(), now_ns))
    yield row(workers.WORKER_HEARTBEAT_AGE_SECONDS, labels, worker.heartbeat_age(now_ns))
    state = worker_state(board, now_ns)
    for name in WorkerState:
        yield row(workers.WORKER_STATE, (*labels, name), float(name == state))
    yield row(workers.WORKER_UPTIME_SECONDS, labels, worker.uptime(now_ns))
    if worker.requests_left is not None:
        yield row(workers.WORKER_REQUESTS_LEFT, labels, float(worker.requests_left))
    if figures is None:
        return
    yield row(workers.WORKER_RESIDENT_MEMORY_BYTES, labels, float(figures.resident))
    yield row(workers.WORKER_THREADS, labels, float(figures.threads))
    # The kernel hides both of a process that changed user, even from its user (proc(5)): the worker writes them.
    unique = reading.unique_memory.get(board[Cell.PID]) or board[Cell.UNIQUE_MEMORY]
    if unique:
        yield row(workers.WORKER_UNIQUE_MEMORY_BYTES, labels, float(unique))
    fds = figures.fds if figures.fds is not None else board[Cell.OPEN_FDS]
    if fds:
        yield row(workers.WORKER_OPEN_FDS, labels, float(fds))


def _loops(reading: Reading) -> Iterator[Row]:
    for owner in reading.owners:
        late = owner.board[Cell.LOOP_LATE]
        if late and owner.slot in reading.totals:
            yield row(workers.WORKER_LOOP_LATE_SECONDS, (str(owner.slot),), (late - 1) / _NS)
    for worker in reading.workers:
        lag = loop_lag(worker.board, reading.taken_ns)
        if lag is not None:
            yield row(workers.WORKER_LOOP_LAG_SECONDS, (str(worker.slot),), lag)


def master_rows(reading: Reading) -> Iterator[Row]:
    """Yield whether a master lives, the number of workers, and the figures of the newest master."""
    yield row(master.UP, (), float(bool(reading.masters)))
    yield row(master.WORKERS, (WorkerCount.TARGET,), float(reading.workers_wanted))
    yield row(master.WORKERS, (WorkerCount.ALIVE,), float(len(reading.workers)))
    yield row(master.WORKERS, (WorkerCount.BOOTED,), float(sum(worker.has_booted for worker in reading.workers)))
    if not any(owner.slot < 0 for owner in reading.owners):
        return
    user, system = reading.master_cpu
    yield row(master.MASTER_CPU_SECONDS, (CpuMode.USER,), user / _NS)
    yield row(master.MASTER_CPU_SECONDS, (CpuMode.SYSTEM,), system / _NS)
    if reading.master is None:
        return
    owner, facts = reading.master.owner, reading.master.facts
    if facts is not None:
        yield row(master.INFO, (facts.gunicorn, facts.promgun, facts.python, facts.worker_type), 1.0)
    if owner.board[Cell.LAST_RELOAD]:
        yield row(master.LAST_RELOAD_TIMESTAMP_SECONDS, (), float(owner.board[Cell.LAST_RELOAD]))
    yield row(master.MASTER_UPTIME_SECONDS, (), owner.uptime(reading.taken_ns))
    if owner.figures is not None:
        yield row(master.MASTER_RESIDENT_MEMORY_BYTES, (), float(owner.figures.resident))


def listener_rows(reading: Reading) -> Iterator[Row]:
    """Yield the accept queues, and the overflows of the network namespace; nothing where the kernel tells neither."""
    for queue in reading.queues:
        yield row(listeners.LISTENER_QUEUE_CONNECTIONS, (queue.address,), float(queue.waiting))
        yield row(listeners.LISTENER_QUEUE_LIMIT, (queue.address,), float(queue.limit))
    overflows = read_overflows() if reading.addresses else {}
    if overflows:
        yield row(listeners.LISTEN_OVERFLOWS, (), overflows["overflows"])
        yield row(listeners.LISTEN_DROPS, (), overflows["drops"])


def promgun_rows(reading: Reading) -> Iterator[Row]:
    """Yield size and errors of the store; the duration of the scrape is added when the page is complete."""
    errors = {reason: sum(owner.board[cell] for owner in reading.owners) for reason, cell in _ERROR_CELLS.items()}
    errors[StoreErrorReason.CORRUPT] += reading.values.corrupt
    for reason, count in errors.items():
        yield row(promgun.STORE_ERRORS, (reason,), float(count))
    own = reading.values.own
    folded = dict(own.folded)
    by_workers = own.rows_of(promgun.LABEL_SETS_FOLDED.name, promgun.LABEL_SETS_FOLDED.labels)
    for (family,), (_, (times,)) in by_workers.items():
        folded[family] = folded.get(family, 0.0) + times
    for family in (*FOLDABLE, *filter(folded.get, _FOLDABLE_LATER)):
        yield row(promgun.LABEL_SETS_FOLDED, (family,), folded.get(family, 0.0))
    yield row(promgun.STORE_BYTES, (), float(reading.values.size))
    yield row(promgun.STORE_FILES, (), float(reading.values.files))
    yield row(promgun.STORE_SLOTS, (), float(sum(owner.slot > 0 for owner in reading.owners)))


def endpoint_rows(_reading: Reading) -> Iterator[Row]:
    """Yield nothing: the metrics process counts them itself, and puts them on the page that it serves."""
    yield from ()


#: What computes the rows of each group of the catalogue.
GROUPS: Mapping[str, Callable[[Reading], Iterator[Row]]] = {
    "requests": request_rows,
    "websockets": websocket_rows,
    "workers": worker_rows,
    "master": master_rows,
    "listeners": listener_rows,
    "promgun": promgun_rows,
    "endpoint": endpoint_rows,
}


def computed_rows(reading: Reading) -> Rows:
    """Return the rows of all groups, by family."""
    rows: dict[MetricSpec, dict[tuple[str, ...], float]] = {}
    for compute in GROUPS.values():
        for family, values, value in compute(reading):
            rows.setdefault(family, {})[values] = value
    return rows


def zero_sets(spec: MetricSpec) -> list[tuple[str, ...]]:
    """Return the label sets of a counter that the page shows as 0 from the start; none if a label is free."""
    if spec is promgun.LABEL_SETS_FOLDED:
        return [(name,) for name in FOLDABLE]
    if spec.group in {"listeners", "endpoint"}:
        # Absent, not 0: the kernel may not tell, and a page that is not served (dump) has no endpoint.
        return []
    sets: list[tuple[str, ...]] = [()]
    for label in spec.labels:
        values = spec.closed.get(label)
        if values is None:
            return []
        sets = [(*head, value) for head in sets for value in values]
    return sets


#: Counters whose label sets may be folded; all else of answered requests has the sets of their counter.
FOLDABLE = tuple(
    spec.name
    for spec in CATALOG
    if spec.kind == "counter" and has_free_labels(spec.labels) and spec is not requests.REQUEST_CPU_SECONDS
)
#: Shown once some was folded: few servers have websockets.
_FOLDABLE_LATER = (websockets.WEBSOCKET_DURATION_SECONDS.name,)
