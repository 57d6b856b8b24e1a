"""Counts answered requests: one call a request that updates numbers in place, formats nothing and lets nothing grow.

A *row* is the place of a (method, route, status): the cells of the slot's file, and the indexes of its numbers in them.
Each process makes a row once for each label set. Every ``cells[index] += x`` with ``x`` in a local is atomic under the
GIL (see ``store.values``); on a free-threaded build one lock is taken around all of them.

All three histograms observe every request. A request whose two sizes are in the first bucket, as most are, is counted
in one cell for both and for the number of requests, any other in a bucket of each: readers add up
(``store.row_format.CellGroup``). Nothing is subtracted, so nothing that is shown sinks, wherever a worker is killed.

An answer whose first byte is sent when it ends, as most are, is counted by its duration alone: readers show that as the
time to its first byte. Streamed answers have rows of their own, with both times (``metrics.stream_recorder``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from promgun.metrics.counters import Counters
from promgun.metrics.families.requests import (
    REQUEST_CPU_SECONDS,
    REQUEST_DURATION_SECONDS,
    REQUEST_SIZE_BYTES,
    REQUESTS,
    RESPONSE_SIZE_BYTES,
    RESPONSE_START_SECONDS,
)
from promgun.metrics.fine_durations import FINE_BOUNDS, FINE_SCHEMA
from promgun.metrics.label_sets import METHODS, OTHER_METHOD, OVERFLOW
from promgun.metrics.statuses import status_label
from promgun.store.exclusive import has_gil
from promgun.store.process import ProcessStore
from promgun.store.row_format import CellGroup, RowSchema

_METHODS = frozenset(METHODS)
#: The place of a (method, route, status): the cells, and in them the indexes of small requests, of the first bucket and
#: the sum of the durations, of the sizes received, and of the sizes sent; then cells and first bucket of the slot's
#: fine histogram of durations. It is unpacked for each request, which takes three times as long with a named tuple
#: (CPython 3.11).
Row = tuple[Any, int, int, int, int, int, int, int, Any, int]

Bounds = tuple[float, float, tuple[float, ...], tuple[float, ...], tuple[float, ...]]
#: The type of the function that counts one answered request.
Record = Callable[[str, str, int, float, int, int], None]


class Recorder:
    """Counts answered requests in the slot of this process.

    ``duration_bounds`` are seconds, ``size_bounds`` bytes, both rising, without ``+Inf``. With ``cpu`` the rows have a
    cell for CPU time, which :attr:`count_cpu` counts in; with ``streams`` they have a histogram of the times to the
    first byte.
    """

    def __init__(
        self,
        store: ProcessStore,
        counters: Counters,
        duration_bounds: Sequence[float],
        size_bounds: Sequence[float],
        *,
        cpu: bool = False,
        streams: bool = False,
    ) -> None:
        self._store = store
        self._counters = counters
        self._duration_bounds = tuple(duration_bounds)
        self._size_bounds = tuple(size_bounds)
        self._schema = request_schema(self._duration_bounds, self._size_bounds, cpu=cpu, streams=streams)
        self._offsets = self._offsets_in_row()
        self._cpu_cell = self._schema.firsts.get(REQUEST_CPU_SECONDS.name)
        self._rows: dict[tuple[str, str, int], Row] = {}
        self._by_labels: dict[tuple[str, ...], Row] = {}
        self._fine: tuple[Any, int] | None = None
        #: The rows that requests were counted in, for whoever counts in them without a call of ``record``. None on a
        #: free-threaded build, where a lock has to be taken.
        self.rows: Mapping[tuple[str, str, int], Row] = self._rows if has_gil() else {}
        # Two searches less for a request that is in both first buckets.
        shortest = min((*self._duration_bounds[:1], *FINE_BOUNDS[:1]))
        #: the largest size and the longest duration in both first buckets; the bounds of sizes, durations, fine ones
        self.bounds: Bounds = size_bounds[0], shortest, self._size_bounds, self._duration_bounds, FINE_BOUNDS
        #: By route, the CPU cell of one of its rows: readers add up all rows of a route.
        self._cpu: dict[str, tuple[Any, int]] = {}
        #: ``count_cpu(route, seconds)`` adds the CPU time of a request that was just recorded.
        self.count_cpu = self._cpu_counter()
        #: ``record(method, route, status, seconds, received, sent)`` counts one answered request: seconds from head to
        #: last byte, body bytes received and sent.
        self.record = self._recorder() if has_gil() else self._locked_recorder(store, self._recorder())
        store.on_detach(self._detach)

    def _detach(self) -> None:
        self._rows.clear()
        self._by_labels.clear()
        self._cpu.clear()
        self._fine = None

    @property
    def counts_cpu(self) -> bool:
        """Whether there is a place for CPU time."""
        return self._cpu_cell is not None

    @property
    def cpu_cells(self) -> dict[str, tuple[Any, int]] | None:
        """The cell for CPU time of each route; ``None`` if there is no place for it."""
        return self._cpu if self.counts_cpu else None

    def _cpu_counter(self) -> Callable[[str, float], None]:
        places, lock = self._cpu, None if has_gil() else self._store.lock

        def count_cpu(route: str, seconds: float) -> None:
            place = places.get(route) or places.get(OVERFLOW)
            if place is None:
                return
            cells, index = place
            if lock is None:
                cells[index] += seconds
                return
            with lock:
                cells[index] += seconds

        return count_cpu

    def _recorder(self) -> Record:
        """Return the function that counts; everything it needs is in its closure."""
        rows, new_row = self._rows, self._row
        smallest, shortest, size_bounds, duration_bounds, fine_bounds = self.bounds

        def record(method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
            try:
                row = rows[method, route, status]
            except KeyError:
                row = new_row(method, route, status)
            cells, small, durations, seconds_sum, sizes_in, in_sum, sizes_out, out_sum, fine_cells, fine = row
            if sent:
                if sent > smallest:
                    cells[sizes_out + bisect_left(size_bounds, sent)] += 1.0
                    small = sizes_in
                cells[out_sum] += sent
            if received:
                cells[in_sum] += received
                if received > smallest:
                    cells[sizes_in + bisect_left(size_bounds, received)] += 1.0
                    if small is not sizes_in:
                        cells[sizes_out] += 1.0
                else:
                    cells[small] += 1.0
            else:
                cells[small] += 1.0
            cells[seconds_sum] += seconds
            if seconds <= shortest:
                cells[durations] += 1.0
                fine_cells[fine] += 1.0
            else:
                cells[durations + bisect_left(duration_bounds, seconds)] += 1.0
                fine_cells[fine + bisect_left(fine_bounds, seconds)] += 1.0

        return record

    @staticmethod
    def _locked_recorder(store: ProcessStore, record: Record) -> Record:
        def locked(method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
            with store.lock:
                record(method, route, status, seconds, received, sent)

        return locked

    @staticmethod
    def known_method(method: str) -> str:
        """Return ``method``, or ``_OTHER`` for one that is in no RFC."""
        return method if method in _METHODS else OTHER_METHOD

    def _row(self, method: str, route: str, status: int) -> Row:
        values = (method if method in _METHODS else OTHER_METHOD, route, status_label(status))
        shown = self._counters.shown_as(REQUESTS, self._schema, values)
        # Names that a client made up are not cached: their row is found by the labels that they are folded into.
        asked = (method, route, status) if shown == (method, route, f"{status}") else None
        with self._store.lock:
            row = self._by_labels.get(shown) or self._make_row(shown, asked)
            if asked is not None:
                self._rows[asked] = row
        return row

    def _make_row(self, labels: tuple[str, ...], asked: tuple[str, str, int] | None) -> Row:
        def placed(cells: Any, indexes: Sequence[int]) -> None:
            row = self._by_labels[labels] = self._row_at(labels, cells, indexes[0])
            if asked is not None:
                self._rows[asked] = row

        cells, indexes = self._store.allocate_row(self._schema, labels, placed)
        row = self._by_labels[labels] = self._row_at(labels, cells, indexes[0])
        return row

    def _offsets_in_row(self) -> tuple[int, int, int, int, int, int, int]:
        """Return where the numbers of :data:`Row` are in a row of the slot."""
        families = REQUESTS, REQUEST_DURATION_SECONDS, REQUEST_SIZE_BYTES, RESPONSE_SIZE_BYTES
        small, durations, sizes_in, sizes_out = (self._schema.firsts[family.name] for family in families)
        seconds_sum = durations + len(self._duration_bounds) + 1
        sizes = len(self._size_bounds) + 1
        return small, durations, seconds_sum, sizes_in, sizes_in + sizes, sizes_out, sizes_out + sizes

    def _row_at(self, labels: tuple[str, ...], cells: Any, start: int) -> Row:
        if self._cpu_cell is not None:
            self._cpu[labels[1]] = cells, start + self._cpu_cell
        small, durations, seconds_sum, sizes_in, in_sum, sizes_out, out_sum = self._offsets
        fine_cells, fine = self._fine or self._find_fine()
        return (
            cells,
            start + small,
            start + durations,
            start + seconds_sum,
            start + sizes_in,
            start + in_sum,
            start + sizes_out,
            start + out_sum,
            fine_cells,
            fine,
        )

    def _find_fine(self) -> tuple[Any, int]:
        """Return the place of the slot's fine histogram."""

        def placed(cells: Any, indexes: Sequence[int]) -> None:
            self._fine = cells, indexes[0]
            for label, row in self._by_labels.items():
                self._by_labels[label] = (*row[:-2], cells, indexes[0])
            for asked, row in self._rows.items():
                self._rows[asked] = (*row[:-2], cells, indexes[0])

        found, indexes = self._store.allocate_row(FINE_SCHEMA, (), placed)
        self._fine = found, indexes[0]
        return self._fine


def request_schema(
    duration_bounds: Sequence[float], size_bounds: Sequence[float], *, cpu: bool = False, streams: bool = False
) -> RowSchema:
    """Return the schema of requests: a row has everything that is counted for a method, route and status.

    The counter's own cell has only requests whose two sizes are in the first bucket; the buckets of the sizes sent have
    all others. With ``cpu`` there is a cell for CPU time as well. With ``streams`` the times to the first byte have
    cells of their own; without, they are shown to be the durations.
    """
    exchange, bounds = REQUEST_SIZE_BYTES.labels, tuple(duration_bounds)
    small, sent, durations = REQUESTS.name, RESPONSE_SIZE_BYTES.name, REQUEST_DURATION_SECONDS.name
    return RowSchema(
        REQUESTS.labels,
        (
            CellGroup(REQUESTS.name, REQUESTS.labels, first_includes=sent),
            CellGroup(durations, REQUESTS.labels, bounds),
            CellGroup(REQUEST_SIZE_BYTES.name, exchange, tuple(size_bounds), small),
            CellGroup(sent, exchange, tuple(size_bounds), small),
            *((CellGroup(REQUEST_CPU_SECONDS.name, REQUEST_CPU_SECONDS.labels),) if cpu else ()),
            CellGroup(RESPONSE_START_SECONDS.name, exchange, bounds, same_as="" if streams else durations),
        ),
    )
