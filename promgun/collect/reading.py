"""One reading of an instance: slots and their owners, the newest master, stored values, the kernel's figures.

Page, status, ``top``, readiness and ``ps --requests`` are views of it. Owners are read at once; what costs more (stored
values, their sums, accept queues) is read when a view first asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import NamedTuple

from promgun.collect.accept_queues import AcceptQueues, Queue
from promgun.collect.processes import Counts, SlotCounters, process_figures
from promgun.collect.route_sums import RouteSums, RouteTotals
from promgun.collect.shown_sets import Shown, ShownSets
from promgun.collect.slot_owners import SlotOwner, owners_of
from promgun.collect.unique_memory import UniqueMemory
from promgun.metrics.defaults import MAX_LABEL_SETS
from promgun.metrics.families.master import WORKER_EXITS
from promgun.metrics.families.requests import REQUESTS
from promgun.metrics.families.workers import WORKER_REQUESTS
from promgun.metrics.fine_durations import FINE_DURATIONS
from promgun.store.board import BoardView, Cell
from promgun.store.master_info import MasterFacts, read_facts
from promgun.store.reader import StoredValues, StoreReader, SumBy, Sums
from promgun.store.row_total import RowTotal
from promgun.store.run_reader import has_ended, joined, master_slot, read_worker_rows
from promgun.system.kept_files import KeptFiles
from promgun.system.procfs import HAS_PROC, ProcessFiles, Usage

#: The sums that a status shows. A worker's requests are those of its slot.
SUMMED = (
    SumBy(REQUESTS.name, REQUESTS.name, "status"),
    SumBy(FINE_DURATIONS, FINE_DURATIONS, "le"),
    SumBy(WORKER_REQUESTS.name, REQUESTS.name, ""),
    SumBy(WORKER_EXITS.name, WORKER_EXITS.name, "cause"),
)
#: All masters together, where slots are told apart by number: no slot has this one.
_MASTERS = 0
#: The cells of a board with what the master has recorded of earlier owners, in the order of :class:`Counts`.
_FIRST_RECORDED = int(Cell.CPU_USER_BASE)
_BEHIND_RECORDED = _FIRST_RECORDED + len(Counts._fields)
_PID, _PROCESS_START, _WORKED = int(Cell.PID), int(Cell.PROCESS_START), int(Cell.WORKED)


@dataclass(frozen=True, slots=True)
class Master:
    """A living master; ``facts`` is ``None`` until it has written them, which it does once it can serve."""

    owner: SlotOwner
    facts: MasterFacts | None


def newest_first(masters: Iterable[Master]) -> tuple[Master, ...]:
    """Return masters by start, newest first: the one place that decides which of them speaks for the instance.

    During SIGUSR2 two masters share a store. A new one that still boots, and has not written its facts, comes behind
    those that serve. The start is that of the board, read from the monotonic clock, which nobody sets.
    """
    return tuple(
        sorted(masters, key=lambda master: (master.facts is not None, master.owner.board[Cell.CLAIMED]), reverse=True)
    )


class SlotTotals(NamedTuple):
    """Counters of a slot over all its owners: nanoseconds (busy, user, system) and counts of context switches."""

    busy: int
    user: int
    system: int
    voluntary: int
    involuntary: int


@dataclass(frozen=True)
class Reading:
    """An instance at a moment.

    ``taken_ns`` is the monotonic clock, ``at`` Unix time; ``owners`` has every slot in order, ``masters`` the living
    ones, newest first, ``totals`` each slot that a worker has owned.
    """

    taken_ns: int
    at: float
    owners: tuple[SlotOwner, ...]
    masters: tuple[Master, ...]
    totals: dict[int, SlotTotals]
    #: nanoseconds of CPU that all masters of the store have used, by user and system
    master_cpu: tuple[int, int]
    max_label_sets: int
    shown: Shown
    #: bytes that workers share with no other process, by pid, of those that have been read
    unique_memory: dict[int, int]
    #: the living workers, in the order of their slots
    workers: tuple[SlotOwner, ...]
    _read_values: Callable[[], StoredValues]
    _read_totals: Callable[[], tuple[Sums, list[RowTotal]]]
    _read_routes: Callable[[list[RowTotal]], dict[str, RouteTotals]]
    _read_queues: Callable[[Iterable[str]], list[Queue]]

    @property
    def master(self) -> Master | None:
        """The newest living master."""
        return self.masters[0] if self.masters else None

    @property
    def workers_wanted(self) -> int:
        """How many workers the living masters want together."""
        return sum(master.owner.board[Cell.TARGET] for master in self.masters)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the living masters listen, each address once."""
        return tuple(sorted({address for master in self.masters if master.facts for address in master.facts.addresses}))

    @cached_property
    def values(self) -> StoredValues:
        """All values of the store, merged."""
        return self._read_values()

    @cached_property
    def sums(self) -> Sums:
        """Sums by sample name and value of a label, see :data:`SUMMED`; buckets are not cumulative."""
        return self._totals[0]

    @cached_property
    def routes(self) -> dict[str, RouteTotals]:
        """What was counted by route, under the labels of the page."""
        return self._read_routes(self._totals[1])

    @cached_property
    def _totals(self) -> tuple[Sums, list[RowTotal]]:
        return self._read_totals()

    @cached_property
    def queues(self) -> tuple[Queue, ...]:
        """The accept queues of the living masters' listeners, by address; empty where the kernel does not tell."""
        return tuple(sorted(self._read_queues(self.addresses), key=lambda queue: queue.address))


class InstanceReader:
    """Reads one store again and again, from one thread at a time; remembers what does not change between readings."""

    def __init__(self, store: Path, unique_memory: UniqueMemory | None = None) -> None:
        self.store = store
        self._kept = KeptFiles()
        self._processes = ProcessFiles(self._kept)
        self._living: frozenset[int] = frozenset()
        self._reader = StoreReader(store, lambda slot: slot in self._living, SUMMED, self._kept, unshown=FINE_DURATIONS)
        self._shown_sets = ShownSets()
        self._routes = RouteSums()
        self._unique_memory = unique_memory or UniqueMemory(0)
        self._counters = SlotCounters()
        self._queues = AcceptQueues()
        self._last_boards: dict[int, BoardView] = {}

    def read(self, *, whole: bool) -> Reading:
        """Read the owners of all slots; never raises for what the store contains.

        ``whole`` also counts the open descriptors of each process, and takes the unique memory of workers, which was
        read elsewhere.
        """
        rows = read_worker_rows(self.store)
        slots = self._reader.read_slots()
        # Each process is looked at once, after all boards.
        usage = cache(self._processes.usage)
        ended = partial(_has_ended, usage)
        views = [joined(slot.board, rows.get(slot.board.slot), ended) for slot in slots]
        owners = owners_of(self.store, partial(process_figures, whole=whole), self._last_boards, views, usage)
        taken_ns, at = time.monotonic_ns(), time.time()
        self._kept.close_unused()
        self._living = frozenset([owner.board.slot for owner in owners if owner.alive])
        workers = tuple([owner for owner in owners if owner.is_worker])
        starts = {worker.board[Cell.PID]: worker.board[Cell.PROCESS_START] for worker in workers}
        facts = list(read_facts(self.store))
        max_label_sets = max((fact.max_label_sets for fact in facts), default=0) or MAX_LABEL_SETS
        masters = newest_first(_masters(owners, facts))
        shown = Shown.of(_newest_facts(masters, facts))
        fold = self._shown_sets.fold(max_label_sets, shown.grouping)
        return Reading(
            taken_ns=taken_ns,
            at=at,
            owners=owners,
            masters=masters,
            totals={owner.board.slot: self._totals_of(owner) for owner in owners if owner.board.cells[_WORKED]},
            workers=workers,
            master_cpu=self._master_cpu(owners),
            max_label_sets=max_label_sets,
            shown=shown,
            unique_memory=self._unique_memory.sizes(starts) if whole else {},
            _read_values=lambda: self._reader.read(fold, slots),
            _read_totals=lambda: self._reader.read_totals(slots),
            _read_routes=lambda totals: self._routes.read(totals, fold, (max_label_sets, shown.grouping)),
            _read_queues=self._queues.read,
        )

    def _master_cpu(self, owners: Iterable[SlotOwner]) -> tuple[int, int]:
        """Return what the masters have used, ended ones included: the sum never sinks when one takes over or leaves."""
        user = system = 0
        for owner in owners:
            if owner.board.slot < 0:
                board, now = owner.board, owner.figures
                user += board[Cell.CPU_USER_BASE] + max(board[Cell.OWN_CPU_USER], now.user if now else 0)
                system += board[Cell.CPU_SYSTEM_BASE] + max(board[Cell.OWN_CPU_SYSTEM], now.system if now else 0)
        return (
            self._counters.clamp(_MASTERS, "user", user),
            self._counters.clamp(_MASTERS, "system", system),
        )

    def _totals_of(self, owner: SlotOwner) -> SlotTotals:
        board = owner.board
        cells = board.cells
        recorded = cells[_FIRST_RECORDED:_BEHIND_RECORDED]
        # A child that the application forked may own a slot that was a worker's; what it uses is not the workers'.
        figures = owner.figures if owner.was_worker else None
        totals = self._counters.update(board.slot, cells[_PID], figures, recorded)
        busy = self._counters.clamp(board.slot, "busy", board.busy_ns(board.taken))
        return SlotTotals(busy, *totals)


def _has_ended(usage: Callable[[int], Usage | None], view: BoardView) -> bool:
    """Whether the process that wrote the board has certainly ended, by what was read of it for this reading."""
    pid = view.cells[_PID]
    if not HAS_PROC or pid <= 0:
        return has_ended(view)
    found = usage(pid)
    return found is None or found.ended or found.start != view.cells[_PROCESS_START]


def _masters(owners: Sequence[SlotOwner], facts: Sequence[MasterFacts]) -> Iterator[Master]:
    known = {(master_slot(fact.slot), fact.pid): fact for fact in facts}
    return (Master(owner, known.get((owner.slot, owner.board[Cell.PID]))) for owner in owners if owner.is_master)


def _newest_facts(masters: Sequence[Master], facts: Sequence[MasterFacts]) -> MasterFacts | None:
    """Return the facts of the newest living master, or of the last one that lived: its page goes on."""
    if masters and masters[0].facts is not None:
        return masters[0].facts
    return max(facts, key=lambda fact: fact.started, default=None)
