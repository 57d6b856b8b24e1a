"""One page: the store merged, joined with the scoreboards and the figures of processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from promgun.collect.accept_queues import AcceptQueues, read_overflows
from promgun.collect.families import build_family, cap_label_sets
from promgun.collect.processes import Figures, ProcessFigures, RisingFigures, boards_with_figures
from promgun.metrics.catalog import BY_NAME, CATALOG
from promgun.metrics.defaults import MAX_LABEL_SETS
from promgun.metrics.label_sets import has_free_labels
from promgun.metrics.label_values import StoreErrorReason, WorkerCount, WorkerState
from promgun.metrics.spec import MetricSpec
from promgun.store.board import BoardView, Cell, Role
from promgun.store.master_info import MasterFacts, read_facts
from promgun.store.reader import Reading, StoreReader, families_of
from promgun.store.request_table import Phase
from promgun.store.series import Series
from promgun.store.slots import read_boards

_NS = 1e9
_ERROR_CELLS = {
    StoreErrorReason.NO_SPACE: Cell.ERRORS_NO_SPACE,
    StoreErrorReason.CORRUPT: Cell.ERRORS_CORRUPT,
    StoreErrorReason.PERMISSION: Cell.ERRORS_PERMISSION,
}
Rows = dict[str, list[tuple[tuple[str, ...], float]]]


class Collector:
    """Collects the page of one store; keep it between pages: it remembers what does not change.

    ``log`` is told of damaged files and of families that cannot be shown, each once. Used from one thread at a time.
    """

    def __init__(self, store: Path, log: Callable[[str], None] | None = None) -> None:
        self.store = store
        self._log = log
        self._alive: dict[int, bool] = {}
        self._reader = StoreReader(store, lambda slot: self._alive.get(slot, False))
        self._figures = ProcessFigures()
        self._rising = RisingFigures()
        self._queues = AcceptQueues()
        self._unshown: set[str] = set()

    # ---- questions of the health pages

    def master_alive(self) -> bool:
        """Whether a master of the store lives."""
        return any(alive and view[Cell.ROLE] == Role.MASTER for view, alive in read_boards(self.store))

    def worker_booted(self) -> bool:
        """Whether at least one living worker has booted."""
        return any(
            alive and view[Cell.ROLE] == Role.WORKER and view[Cell.BOOTED] > 0
            for view, alive in read_boards(self.store)
        )

    # ---- the page

    def collect(self) -> list[Metric]:
        """Return every family: ours in catalogue order, then the application's by name."""
        begin = time.perf_counter()
        owners = boards_with_figures(self.store, self._figures.read)
        boards = [(view, alive) for view, alive, _ in owners]
        self._alive = {view.slot: alive for view, alive in boards}
        reading = self._reader.read()
        for complaint in reading.complaints:
            if self._log is not None:
                self._log(f"A file of the metrics store is damaged and read as far as it is good: {complaint}")
        stored = families_of(reading.series)
        facts = list(read_facts(self.store))
        cap = max((fact.max_label_sets for fact in facts), default=0) or MAX_LABEL_SETS
        rows = self._live_rows(owners, facts)
        self._add_store_rows(rows, boards, reading)
        families = [_own_family(spec, rows.get(spec.name, []), stored.pop(spec.family, []), cap) for spec in CATALOG]
        scrape = next(family for family in families if family.name == "promgun_scrape_duration_seconds")
        for name in sorted(stored):
            families.extend(self._foreign_family(name, stored[name]))
        scrape.samples = [Sample(scrape.name, {}, time.perf_counter() - begin)]
        return [family for family in families if family.samples]

    def _foreign_family(self, name: str, series: list[Series]) -> list[Metric]:
        """Return the application's family, or nothing when its names are none that a metric can have."""
        try:
            return [build_family(name, series)]
        except ValueError as error:
            if self._log is not None and name not in self._unshown:
                self._unshown.add(name)
                self._log(f"The family {name!r} cannot be shown: {error}")
            return []

    def _live_rows(self, owners: list[tuple[BoardView, bool, Figures | None]], known: list[MasterFacts]) -> Rows:
        rows: Rows = {}
        now = time.monotonic_ns()
        facts = {(fact.slot, fact.pid): fact for fact in known}
        self._figures.keep(view[Cell.PID] for view, alive, _ in owners if alive)
        masters = []
        states = dict.fromkeys(WorkerCount, 0)
        for view, alive, figures in owners:
            role = view[Cell.ROLE]
            totals = self._rising.update(view.slot, view[Cell.PID], figures, _lasting(view))
            if role == Role.MASTER and alive:
                masters.append((view, facts.get((view.slot, view[Cell.PID])), figures))
                states[WorkerCount.TARGET] += view[Cell.TARGET]
            if view[Cell.WORKED]:
                busy = self._rising.clamp(view.slot, "busy", view.busy_ns(view.taken))
                for name, labels, value in _slot_rows(view, busy, totals):
                    rows.setdefault(f"gunicorn_worker_{name}", []).append(((str(view.slot), *labels), value))
            if role == Role.WORKER and alive:
                states[WorkerCount.ALIVE] += 1
                states[WorkerCount.BOOTED] += view[Cell.BOOTED] > 0
                for name, labels, value in _worker_rows(view, now, figures):
                    rows.setdefault(f"gunicorn_worker_{name}", []).append(((str(view.slot), *labels), value))
        self._add_listener_rows(rows, (fact for _, fact, _ in masters if fact is not None))
        rows["gunicorn_workers"] = [((state,), float(count)) for state, count in states.items()]
        rows["gunicorn_up"] = [((), float(bool(masters)))]
        if masters:
            for name, labels, value in _master_rows(*masters[-1], now):
                rows.setdefault(f"gunicorn_{name}", []).append((labels, value))
        return rows

    def _add_listener_rows(self, rows: Rows, facts: Iterable[MasterFacts]) -> None:
        addresses = {address for fact in facts for address in fact.addresses}
        for queue in self._queues.read(sorted(addresses)):
            for name, count in (("connections", queue.waiting), ("limit", queue.limit)):
                row = ((queue.address,), float(count))
                rows.setdefault(f"gunicorn_listener_queue_{name}", []).append(row)
        if addresses:
            for name, value in read_overflows().items():
                rows[f"gunicorn_listen_{name}_total"] = [((), value)]

    def _add_store_rows(self, rows: Rows, boards: list[tuple[BoardView, bool]], reading: Reading) -> None:
        errors = dict.fromkeys(StoreErrorReason, 0.0)
        for view, _ in boards:
            for reason, cell in _ERROR_CELLS.items():
                errors[reason] += view[cell]
        errors[StoreErrorReason.CORRUPT] += reading.corrupt
        rows["promgun_store_errors_total"] = [((reason,), count) for reason, count in errors.items()]
        rows["promgun_store_bytes"] = [((), float(reading.size))]
        rows["promgun_store_files"] = [((), float(reading.files))]
        rows["promgun_store_slots"] = [((), float(len(boards)))]


def _lasting(view: BoardView) -> dict[str, int]:
    return {
        "user": view[Cell.CPU_USER_BASE],
        "system": view[Cell.CPU_SYSTEM_BASE],
        "voluntary": view[Cell.SWITCHES_VOLUNTARY_BASE],
        "involuntary": view[Cell.SWITCHES_INVOLUNTARY_BASE],
    }


def worker_state(view: BoardView, now_ns: int) -> WorkerState:
    """Return the one state a worker is in; hung is no heartbeat for half the timeout."""
    if not view[Cell.BOOTED]:
        return WorkerState.BOOTING
    timeout = view[Cell.TIMEOUT]
    if timeout and now_ns - view[Cell.HEARTBEAT] > timeout // 2:
        return WorkerState.HUNG
    if view[Cell.DRAINING]:
        return WorkerState.DRAINING
    return WorkerState.BUSY if view.in_progress > 0 else WorkerState.IDLE


def _worker_rows(view: BoardView, now: int, figures: Figures | None) -> Iterator[tuple[str, tuple[str, ...], float]]:
    yield "requests_in_progress", (), float(view.in_progress)
    yield "capacity", (), float(view[Cell.CAPACITY])
    oldest = next((request for request in view.running() if request.phase >= Phase.APPLICATION), None)
    yield "oldest_request_seconds", (), oldest.age(now) if oldest is not None else 0.0
    yield "heartbeat_age_seconds", (), max(0, now - view[Cell.HEARTBEAT]) / _NS
    state = worker_state(view, now)
    for name in WorkerState:
        yield "state", (name,), float(name == state)
    yield "uptime_seconds", (), (now - view[Cell.CLAIMED]) / _NS
    if view[Cell.MAX_REQUESTS]:
        yield "requests_left", (), float(max(0, view[Cell.MAX_REQUESTS] - view[Cell.SERVED]))
    if figures is None:
        return
    yield "resident_memory_bytes", (), float(figures.resident)
    yield "threads", (), float(figures.threads)
    unique = figures.unique if figures.unique is not None else view[Cell.UNIQUE_MEMORY]
    if unique:
        yield "unique_memory_bytes", (), float(unique)
    fds = figures.fds if figures.fds is not None else view[Cell.OPEN_FDS]
    if fds:
        yield "open_fds", (), float(fds)


def _slot_rows(view: BoardView, busy: int, totals: dict[str, int]) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Yield what belongs to the slot and goes on rising from owner to owner."""
    yield "busy_seconds_total", (), busy / _NS
    for mode in ("user", "system"):
        yield "cpu_seconds_total", (mode,), totals[mode] / _NS
    for kind in ("voluntary", "involuntary"):
        yield "context_switches_total", (kind,), float(totals[kind])
    if sys.platform == "linux":
        yield "cpu_wait_seconds_total", (), view[Cell.CPU_WAIT] / _NS
    for generation, cell in enumerate((Cell.GC_COLLECTIONS_0, Cell.GC_COLLECTIONS_1, Cell.GC_COLLECTIONS_2)):
        yield "gc_collections_total", (str(generation),), float(view[cell])
    yield "gc_pause_seconds_total", (), view[Cell.GC_PAUSE] / _NS


def _master_rows(
    view: BoardView, facts: MasterFacts | None, figures: Figures | None, now: int
) -> Iterator[tuple[str, tuple[str, ...], float]]:
    if facts is not None:
        yield "info", (facts.gunicorn, facts.promgun, facts.python, facts.worker_type), 1.0
    if view[Cell.LAST_RELOAD]:
        yield "last_reload_timestamp_seconds", (), float(view[Cell.LAST_RELOAD])
    yield "master_uptime_seconds", (), (now - view[Cell.CLAIMED]) / _NS
    if figures is not None:
        yield "master_resident_memory_bytes", (), float(figures.resident)
        yield "master_cpu_seconds_total", ("user",), figures.user / _NS
        yield "master_cpu_seconds_total", ("system",), figures.system / _NS


def _own_family(spec: MetricSpec, rows: list[tuple[tuple[str, ...], float]], stored: list[Series], cap: int) -> Metric:
    """Return a family of the catalogue: what stands in files, what was computed, and 0 for closed sets that nothing
    has touched.
    """
    # What an application puts under our names, and what damage makes of our keys, is not ours.
    names = tuple(sorted(spec.labels))
    series = [] if rows else [item for item in stored if item.kind == spec.kind and item.names == names]
    if series and has_free_labels(spec.labels):
        series = cap_label_sets(series, cap)
    if series:
        family = build_family(spec.family, series)
        family.documentation = spec.help
    else:
        family = Metric(spec.family, spec.help, spec.kind)
    family.samples.extend(
        Sample(spec.name, dict(zip(spec.labels, values, strict=True)), value) for values, value in rows
    )
    if spec.kind == "counter":
        present = {tuple(sample.labels.get(label, "") for label in spec.labels) for sample in family.samples}
        family.samples.extend(
            Sample(spec.name, dict(zip(spec.labels, values, strict=True)), 0.0)
            for values in _closed_sets(spec)
            if values not in present
        )
    return family


def _closed_sets(spec: MetricSpec) -> list[tuple[str, ...]]:
    """Return the label sets that are there from the start; none when a label's values are not known beforehand."""
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


FOLDABLE = tuple(spec.name for spec in BY_NAME.values() if spec.kind == "counter" and has_free_labels(spec.labels))
