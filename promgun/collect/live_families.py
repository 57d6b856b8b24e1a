"""The families that are computed for each page, not stored: one function for each group of the catalogue.

A function yields columns: a family, label sets, and their values. Those of workers hold all workers at once: a page of
128 workers has more than 3,000 lines of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import TypeVar

from promgun.collect.accept_queues import read_overflows
from promgun.collect.reading import Reading
from promgun.collect.slot_owners import SlotOwner, loop_lag, worker_state
from promgun.metrics.catalog import CATALOG
from promgun.metrics.families import listeners, master, promgun, requests, websockets, workers
from promgun.metrics.label_sets import has_free_labels
from promgun.metrics.label_values import CpuMode, Generation, StoreErrorReason, SwitchKind, WorkerCount, WorkerState
from promgun.metrics.spec import CounterFamily, GaugeFamily, Labels, MetricSpec
from promgun.store.board import Cell

_NS = 1e9
_Value = TypeVar("_Value", bound=str)
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

#: The label values of some series, in the catalogue's order of labels. Kept between pages: the same object again tells
#: that they have not changed.
Sets = tuple[tuple[str, ...], ...]
#: Label sets, and the value of each.
Column = tuple[Sets, list[float]]
FamilyColumn = tuple[MetricSpec, Sets, list[float]]


def column(
    family: CounterFamily[Labels] | GaugeFamily[Labels], sets: tuple[Labels, ...], values: Iterable[float]
) -> FamilyColumn:
    """Return a column whose label values have the types that the family wants."""
    return family, sets, list(map(float, values))


def row(family: CounterFamily[Labels] | GaugeFamily[Labels], values: Labels, value: float) -> FamilyColumn:
    """Return a column of one label set."""
    return family, (values,), [value]


@lru_cache(maxsize=64)
def _ids(slots: tuple[int, ...]) -> tuple[tuple[str], ...]:
    """Return the label sets of families whose only label is ``worker_id``."""
    return tuple((str(slot),) for slot in slots)


@lru_cache(maxsize=64)
def _ids_by(slots: tuple[int, ...], values: tuple[_Value, ...]) -> tuple[tuple[str, _Value], ...]:
    """Return the label sets of families with another label, each of whose values every slot has."""
    return tuple((str(slot), value) for slot in slots for value in values)


def _known(slots: Sequence[int], values: Iterable[float | None]) -> tuple[tuple[tuple[str], ...], list[float]]:
    """Return label sets and values of those slots that have one."""
    found = [(slot, value) for slot, value in zip(slots, values, strict=True) if value is not None]
    return _ids(tuple(slot for slot, _ in found)), [value for _, value in found]


def request_rows(_: Reading) -> Iterator[FamilyColumn]:
    """Yield nothing: all families of requests are stored."""
    yield from ()


def websocket_rows(reading: Reading) -> Iterator[FamilyColumn]:
    """Yield how many websockets are open in each living worker that may have some."""
    counts = [worker.board[Cell.WEBSOCKETS] for worker in reading.workers]
    if any(counts):
        slots = [worker.slot for worker in reading.workers]
        yield column(
            websockets.WEBSOCKETS_OPEN,
            *_known(slots, [float(max(0, count - 1)) if count else None for count in counts]),
        )


def worker_rows(reading: Reading) -> Iterator[FamilyColumn]:
    """Yield the counters of each slot, then the gauges of each living worker."""
    yield from _slots(reading)
    yield from _workers(reading)
    yield from _loops(reading)


def _slots(reading: Reading) -> Iterator[FamilyColumn]:
    totals = reading.totals
    boards = [owner.board for owner in reading.owners if owner.slot in totals]
    slots = tuple([board.slot for board in boards])
    if not slots:
        return
    requests = reading.values.by_slot[workers.WORKER_REQUESTS.name]
    each = [totals[slot] for slot in slots]
    ids = _ids(slots)
    yield column(workers.WORKER_REQUESTS, ids, [requests.get(worker_id, 0.0) for (worker_id,) in ids])
    yield column(workers.WORKER_BUSY_SECONDS, ids, [slot.busy / _NS for slot in each])
    modes = _ids_by(slots, (CpuMode.USER, CpuMode.SYSTEM))
    yield column(workers.WORKER_CPU_SECONDS, modes, [ns / _NS for slot in each for ns in (slot.user, slot.system)])
    kinds = _ids_by(slots, (SwitchKind.VOLUNTARY, SwitchKind.INVOLUNTARY))
    switches = [count for slot in each for count in (slot.voluntary, slot.involuntary)]
    yield column(workers.WORKER_CONTEXT_SWITCHES, kinds, switches)
    if sys.platform == "linux":
        yield column(workers.WORKER_CPU_WAIT_SECONDS, ids, [board[Cell.CPU_WAIT] / _NS for board in boards])
    generations = _ids_by(slots, tuple(_GENERATION_CELLS))
    cells = tuple(_GENERATION_CELLS.values())
    yield column(workers.WORKER_GC_COLLECTIONS, generations, [board[cell] for board in boards for cell in cells])
    yield column(workers.WORKER_GC_PAUSE_SECONDS, ids, [board[Cell.GC_PAUSE] / _NS for board in boards])


def _workers(reading: Reading) -> Iterator[FamilyColumn]:
    living, now_ns = reading.workers, reading.taken_ns
    slots = tuple([worker.slot for worker in living])
    if not slots:
        return
    ids, boards = _ids(slots), [worker.board for worker in living]
    running = [board.in_progress for board in boards]
    yield column(workers.WORKER_REQUESTS_IN_PROGRESS, ids, running)
    capacities = [board[Cell.CAPACITY] for board in boards]
    if all(capacities):
        yield column(workers.WORKER_CAPACITY, ids, capacities)
    else:
        # Where a class has no limit, nothing can be divided by it.
        yield column(workers.WORKER_CAPACITY, *_known(slots, [float(number) or None for number in capacities]))
    oldest = [worker.oldest_request(worker.board.running(), now_ns) for worker in living]
    yield column(workers.WORKER_OLDEST_REQUEST_SECONDS, ids, oldest)
    yield column(workers.WORKER_HEARTBEAT_AGE_SECONDS, ids, [worker.heartbeat_age(now_ns) for worker in living])
    names = tuple(WorkerState)
    states = [worker_state(board, now_ns, serves=count > 0) for board, count in zip(boards, running, strict=True)]
    is_in = {state: [float(state is name) for name in names] for state in names}
    yield column(workers.WORKER_STATE, _ids_by(slots, names), chain.from_iterable(map(is_in.__getitem__, states)))
    yield column(workers.WORKER_UPTIME_SECONDS, ids, [worker.uptime(now_ns) for worker in living])
    yield column(workers.WORKER_REQUESTS_LEFT, *_known(slots, [worker.requests_left for worker in living]))
    yield from _figures(reading, [worker for worker in living if worker.figures is not None])


def _figures(reading: Reading, living: Sequence[SlotOwner]) -> Iterator[FamilyColumn]:
    slots, boards = tuple([worker.slot for worker in living]), [worker.board for worker in living]
    ids, figures = _ids(slots), [worker.figures for worker in living if worker.figures is not None]
    yield column(workers.WORKER_RESIDENT_MEMORY_BYTES, ids, [figure.resident for figure in figures])
    yield column(workers.WORKER_THREADS, ids, [figure.threads for figure in figures])
    # The kernel hides both of a process that changed user, even from its user (proc(5)): the worker writes them.
    unique = [reading.unique_memory.get(board[Cell.PID]) or board[Cell.UNIQUE_MEMORY] or None for board in boards]
    yield column(workers.WORKER_UNIQUE_MEMORY_BYTES, *_known(slots, unique))
    fds = [
        (board[Cell.OPEN_FDS] if figure.fds is None else figure.fds) or None
        for board, figure in zip(boards, figures, strict=True)
    ]
    yield column(workers.WORKER_OPEN_FDS, *_known(slots, fds))


def _loops(reading: Reading) -> Iterator[FamilyColumn]:
    owners = [owner for owner in reading.owners if owner.slot in reading.totals]
    late = [owner.board[Cell.LOOP_LATE] for owner in owners]
    if any(late):
        slots = [owner.slot for owner in owners]
        yield column(workers.WORKER_LOOP_LATE_SECONDS, *_known(slots, [(ns - 1) / _NS if ns else None for ns in late]))
    living = [worker for worker in reading.workers if worker.board[Cell.LOOP_WINDOW]]
    if living:
        lags = [loop_lag(worker.board, reading.taken_ns) for worker in living]
        yield column(workers.WORKER_LOOP_LAG_SECONDS, *_known([worker.slot for worker in living], lags))


def master_rows(reading: Reading) -> Iterator[FamilyColumn]:
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


def listener_rows(reading: Reading) -> Iterator[FamilyColumn]:
    """Yield the accept queues, and the overflows of the network namespace; nothing where the kernel tells neither."""
    for queue in reading.queues:
        yield row(listeners.LISTENER_QUEUE_CONNECTIONS, (queue.address,), float(queue.waiting))
        yield row(listeners.LISTENER_QUEUE_LIMIT, (queue.address,), float(queue.limit))
    overflows = read_overflows() if reading.addresses else {}
    if overflows:
        yield row(listeners.LISTEN_OVERFLOWS, (), overflows["overflows"])
        yield row(listeners.LISTEN_DROPS, (), overflows["drops"])


def promgun_rows(reading: Reading) -> Iterator[FamilyColumn]:
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


def endpoint_rows(_reading: Reading) -> Iterator[FamilyColumn]:
    """Yield nothing: the metrics process counts them itself, and puts them on the page that it serves."""
    yield from ()


#: What computes the rows of each group of the catalogue.
GROUPS: Mapping[str, Callable[[Reading], Iterator[FamilyColumn]]] = {
    "requests": request_rows,
    "websockets": websocket_rows,
    "workers": worker_rows,
    "master": master_rows,
    "listeners": listener_rows,
    "promgun": promgun_rows,
    "endpoint": endpoint_rows,
}


def computed_columns(reading: Reading) -> Mapping[MetricSpec, Column]:
    """Return the label sets and values of all groups, by family."""
    columns: dict[MetricSpec, Column] = {}
    for compute in GROUPS.values():
        for family, sets, values in compute(reading):
            before = columns.get(family)
            columns[family] = (sets, values) if before is None else ((*before[0], *sets), [*before[1], *values])
    return columns


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
