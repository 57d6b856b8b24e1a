"""The families that are computed for each page, not stored: one function for each group of the catalogue.

Those of workers are in ``collect.live_workers``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from promgun.collect.accept_queues import read_overflows
from promgun.collect.live_columns import Column, FamilyColumn, column, known, row
from promgun.collect.live_workers import worker_rows
from promgun.collect.reading import Reading
from promgun.metrics.catalog import CATALOG
from promgun.metrics.families import listeners, master, promgun, requests, websockets
from promgun.metrics.label_sets import has_free_labels
from promgun.metrics.label_values import CpuMode, StoreErrorReason, WorkerCount
from promgun.metrics.spec import MetricSpec
from promgun.store.board import Cell

_NS = 1e9
_WEBSOCKETS = int(Cell.WEBSOCKETS)
_ERROR_CELLS = {
    StoreErrorReason.NO_SPACE: Cell.ERRORS_NO_SPACE,
    StoreErrorReason.CORRUPT: Cell.ERRORS_CORRUPT,
    StoreErrorReason.VANISHED: Cell.ERRORS_VANISHED,
    StoreErrorReason.PERMISSION: Cell.ERRORS_PERMISSION,
}


def request_rows(_: Reading) -> Iterator[FamilyColumn]:
    """Yield nothing: all families of requests are stored."""
    yield from ()


def websocket_rows(reading: Reading) -> Iterator[FamilyColumn]:
    """Yield how many websockets are open in each living worker that may have some."""
    counts = [worker.board.cells[_WEBSOCKETS] for worker in reading.workers]
    if any(counts):
        slots = [worker.slot for worker in reading.workers]
        yield column(
            websockets.WEBSOCKETS_OPEN,
            *known(slots, [float(max(0, count - 1)) if count else None for count in counts]),
        )


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
    boards = [owner.board.cells for owner in reading.owners]
    errors = {reason: sum([cells[cell] for cells in boards]) for reason, cell in _ERROR_CELLS.items()}
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
