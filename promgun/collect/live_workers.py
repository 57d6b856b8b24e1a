"""The families of workers that are computed for each page: counters of each slot, gauges of each living worker."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter

from promgun.collect.live_columns import FamilyColumn, column, ids_by, ids_of, known
from promgun.collect.reading import Reading
from promgun.collect.slot_owners import SlotOwner, loop_lag, worker_state
from promgun.metrics.families import workers
from promgun.metrics.label_values import CpuMode
from promgun.metrics.late_label_values import Generation, SwitchKind, WorkerState
from promgun.store.board import Cell

_NS = 1e9
#: What is shown of each worker's board as it stands there.
_COLUMNS = (
    Cell.CAPACITY,
    Cell.CLAIMED,
    Cell.CPU_WAIT,
    Cell.GC_COLLECTIONS_0,
    Cell.GC_COLLECTIONS_1,
    Cell.GC_COLLECTIONS_2,
    Cell.GC_PAUSE,
    Cell.HEARTBEAT,
    Cell.LOOP_LATE,
    Cell.LOOP_WINDOW,
    Cell.MAX_REQUESTS,
)
_cells_of = itemgetter(*_COLUMNS)
_PID = int(Cell.PID)
_OPEN_FDS, _UNIQUE_MEMORY = int(Cell.OPEN_FDS), int(Cell.UNIQUE_MEMORY)
_GENERATION_CELLS = {
    Generation.YOUNGEST: Cell.GC_COLLECTIONS_0,
    Generation.MIDDLE: Cell.GC_COLLECTIONS_1,
    Generation.OLDEST: Cell.GC_COLLECTIONS_2,
}


def worker_rows(reading: Reading) -> Iterator[FamilyColumn]:
    """Yield the counters of each slot, then the gauges of each living worker."""
    owners = [owner for owner in reading.owners if owner.board.slot in reading.totals]
    if owners:
        yield from _slots(reading, tuple([owner.board.slot for owner in owners]), _columns_of(owners))
    living = reading.workers
    if living:
        slots, cells = tuple([worker.board.slot for worker in living]), _columns_of(living)
        yield from _workers(reading, slots, cells)
        yield from _loops(reading, slots, cells)


def _slots(reading: Reading, slots: tuple[int, ...], cells: Mapping[int, tuple[int, ...]]) -> Iterator[FamilyColumn]:
    requests = reading.values.by_slot[workers.WORKER_REQUESTS.name]
    ids = ids_of(slots)
    yield column(workers.WORKER_REQUESTS, ids, [requests.get(worker_id, 0.0) for (worker_id,) in ids])
    busy, user, system, voluntary, involuntary = zip(*[reading.totals[slot] for slot in slots], strict=True)
    yield column(workers.WORKER_BUSY_SECONDS, ids, _in_seconds(busy))
    modes = ids_by(slots, (CpuMode.USER, CpuMode.SYSTEM))
    yield column(workers.WORKER_CPU_SECONDS, modes, _in_seconds(_alternating(user, system)))
    kinds = ids_by(slots, (SwitchKind.VOLUNTARY, SwitchKind.INVOLUNTARY))
    yield column(workers.WORKER_CONTEXT_SWITCHES, kinds, _alternating(voluntary, involuntary))
    if sys.platform == "linux":
        yield column(workers.WORKER_CPU_WAIT_SECONDS, ids, _in_seconds(cells[Cell.CPU_WAIT]))
    generations = ids_by(slots, tuple(_GENERATION_CELLS))
    collections = _alternating(*[cells[cell] for cell in _GENERATION_CELLS.values()])
    yield column(workers.WORKER_GC_COLLECTIONS, generations, collections)
    yield column(workers.WORKER_GC_PAUSE_SECONDS, ids, _in_seconds(cells[Cell.GC_PAUSE]))
    late = cells[Cell.LOOP_LATE]
    if any(late):
        yield column(workers.WORKER_LOOP_LATE_SECONDS, *known(slots, [(ns - 1) / _NS if ns else None for ns in late]))


def _alternating(*columns: Iterable[int]) -> Iterable[int]:
    return chain.from_iterable(zip(*columns, strict=True))


def _workers(reading: Reading, slots: tuple[int, ...], cells: Mapping[int, tuple[int, ...]]) -> Iterator[FamilyColumn]:
    living, now_ns = reading.workers, reading.taken_ns
    ids, boards = ids_of(slots), [worker.board for worker in living]
    running = [board.in_progress for board in boards]
    yield column(workers.WORKER_REQUESTS_IN_PROGRESS, ids, running)
    capacities = cells[Cell.CAPACITY]
    if all(capacities):
        yield column(workers.WORKER_CAPACITY, ids, capacities)
    else:
        # Where a class has no limit, nothing can be divided by it.
        yield column(workers.WORKER_CAPACITY, *known(slots, [float(number) or None for number in capacities]))
    oldest = [SlotOwner.oldest_request(board.running(), now_ns) for board in boards]
    yield column(workers.WORKER_OLDEST_REQUEST_SECONDS, ids, oldest)
    ages = [max(0, now_ns - beat) for beat in cells[Cell.HEARTBEAT]]
    yield column(workers.WORKER_HEARTBEAT_AGE_SECONDS, ids, _in_seconds(ages))
    names = tuple(WorkerState)
    states = [worker_state(board, now_ns, serves=count > 0) for board, count in zip(boards, running, strict=True)]
    is_in = {state: [float(state is name) for name in names] for state in names}
    yield column(workers.WORKER_STATE, ids_by(slots, names), chain.from_iterable(map(is_in.__getitem__, states)))
    yield column(workers.WORKER_UPTIME_SECONDS, ids, [(now_ns - claimed) / _NS for claimed in cells[Cell.CLAIMED]])
    if any(cells[Cell.MAX_REQUESTS]):
        yield column(workers.WORKER_REQUESTS_LEFT, *known(slots, [worker.requests_left for worker in living]))
    yield from _figures(reading, [worker for worker in living if worker.figures is not None])


def _figures(reading: Reading, living: Sequence[SlotOwner]) -> Iterator[FamilyColumn]:
    slots, boards = tuple([worker.slot for worker in living]), [worker.board.cells for worker in living]
    ids, figures = ids_of(slots), [worker.figures for worker in living if worker.figures is not None]
    yield column(workers.WORKER_RESIDENT_MEMORY_BYTES, ids, [figure.resident for figure in figures])
    yield column(workers.WORKER_THREADS, ids, [figure.threads for figure in figures])
    # The kernel hides both of a process that changed user, even from its user (proc(5)): the worker writes them.
    read = reading.unique_memory
    unique = [read.get(cells[_PID]) or cells[_UNIQUE_MEMORY] or None for cells in boards]
    yield column(workers.WORKER_UNIQUE_MEMORY_BYTES, *known(slots, unique))
    fds = [
        (cells[_OPEN_FDS] if figure.fds is None else figure.fds) or None
        for cells, figure in zip(boards, figures, strict=True)
    ]
    yield column(workers.WORKER_OPEN_FDS, *known(slots, fds))


def _loops(reading: Reading, slots: tuple[int, ...], cells: Mapping[int, tuple[int, ...]]) -> Iterator[FamilyColumn]:
    if any(cells[Cell.LOOP_WINDOW]):
        lags = [loop_lag(worker.board, reading.taken_ns) for worker in reading.workers]
        yield column(workers.WORKER_LOOP_LAG_SECONDS, *known(slots, lags))


def _columns_of(owners: Sequence[SlotOwner]) -> Mapping[int, tuple[int, ...]]:
    """Return these cells of at least one board, each as a column; ``_columns_of(owners)[cell][n]`` is of the n-th."""
    return dict(zip(_COLUMNS, zip(*[_cells_of(owner.board.cells) for owner in owners], strict=True), strict=True))


def _in_seconds(column: Iterable[int]) -> list[float]:
    return [ns / _NS for ns in column]
