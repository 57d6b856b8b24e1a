"""The accounting of one request: one call, in place, no formatting and nothing that grows.

A *row* holds where a (method, route, status) counts: the cells of the counter file and of the histogram file and the
indexes of its series in them.
Rows are made once a label set and process. Every ``cells[index] += x`` with ``x`` in a local is atomic under the GIL
(see ``store.values``); on a
free-threaded build one lock is taken around all of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from promgun.metrics.catalog import METHODS, OTHER_METHOD, OVERFLOW
from promgun.metrics.counters import Counters, counter_key, histogram_keys
from promgun.metrics.families.requests import (
    REQUEST_DURATION_SECONDS,
    REQUEST_SIZE_BYTES,
    REQUESTS,
    RESPONSE_SIZE_BYTES,
)
from promgun.metrics.families.workers import WORKER_REQUESTS
from promgun.store.process import ProcessStore
from promgun.store.values import has_gil

_METHODS = frozenset(METHODS)
#: Three digits, as RFC 9110 (section 15) has them; whatever else an application says is counted as none.
_STATUSES = range(100, 1000)
_NO_STATUS = 0


#: Where one (method, route, status) counts: counter cells, indexes of requests and of the worker's own requests in
#: them; histogram cells, indexes of the durations, the sizes received and sent. The last index of each histogram is its
#: sum. A plain tuple: it is unpacked for each request, which a named one makes three times as slow (CPython 3.11).
Row = tuple[Any, int, int, Any, Sequence[int], Sequence[int], Sequence[int]]


#: What counts one answered request.
Record = Callable[[str, str, int, float, int, int], None]


class Recorder:
    """Counts answered requests in the slot of this process.

    ``duration_bounds`` are seconds, ``size_bounds`` bytes, both rising, without ``+Inf``.
    """

    def __init__(
        self,
        store: ProcessStore,
        counters: Counters,
        duration_bounds: Sequence[float],
        size_bounds: Sequence[float],
    ) -> None:
        self._store = store
        self._counters = counters
        self._duration_bounds = tuple(duration_bounds)
        self._size_bounds = tuple(size_bounds)
        self._rows: dict[tuple[str, str, int], Row] = {}
        #: ``record(method, route, status, seconds, received, sent)`` counts one answered request: seconds from head to
        #: last byte, body bytes received and sent.
        self.record = self._recorder() if has_gil() else self._locked_recorder(store, self._recorder())
        store.on_detach(self._rows.clear)

    def _recorder(self) -> Record:
        """Return the function that counts; its closure holds all that it needs."""
        rows, new_row = self._rows, self._row
        duration_bounds, size_bounds = self._duration_bounds, self._size_bounds

        def record(method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
            row = rows.get((method, route, status))
            if row is None:
                row = new_row(method, route, status)
            counters, requests, worker_requests, cells, duration, size_in, size_out = row
            counters[requests] += 1.0
            counters[worker_requests] += 1.0
            bucket = duration[bisect_left(duration_bounds, seconds)]
            cells[bucket] += 1.0
            total = duration[-1]
            cells[total] += seconds
            if received:
                bucket = size_in[bisect_left(size_bounds, received)]
                cells[bucket] += 1.0
                total = size_in[-1]
                cells[total] += received
            else:
                # Most requests have no body, and 0 is always in the first bucket.
                bucket = size_in[0]
                cells[bucket] += 1.0
            bucket = size_out[bisect_left(size_bounds, sent)]
            cells[bucket] += 1.0
            total = size_out[-1]
            cells[total] += sent

        return record

    @staticmethod
    def _locked_recorder(store: ProcessStore, record: Record) -> Record:
        def locked(method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
            with store.lock:
                record(method, route, status, seconds, received, sent)

        return locked

    @staticmethod
    def known_method(method: str) -> str:
        """Return ``method``, or ``_OTHER`` for one that no RFC names."""
        return method if method in _METHODS else OTHER_METHOD

    def _row(self, method: str, route: str, status: int) -> Row:
        identity = (method, route, status)
        known = self.known_method(method)
        # An application may answer "999 What" or "abc"; Gunicorn then has that number, or None (27.0 Response).
        code = status if status in _STATUSES else _NO_STATUS
        values = self._counters.fold(REQUESTS, (known, route, f"{code:03d}"))
        if values[1] == OVERFLOW or known != method or code != status:
            # Do not remember what a client made up: the folded row is remembered under its own name only.
            identity = (known, values[1], code)
            row = self._rows.get(identity)
            if row is not None:
                return row
        with self._store.lock:
            row = self._rows[identity] = self._make_row(identity)
        return row

    def _make_row(self, identity: tuple[str, str, int]) -> Row:
        method, route, status = identity
        exchange = (method, route)
        values = (*exchange, f"{status:03d}")

        def counters_on_space(cells: Any, indexes: Sequence[int]) -> None:
            self._rows[identity] = (cells, *indexes, *self._rows[identity][3:])

        def histograms_on_space(cells: Any, indexes: Sequence[int]) -> None:
            self._rows[identity] = (*self._rows[identity][:3], cells, *self._split(indexes))

        def counter_keys() -> tuple[str, str]:
            slot = self._store.slot
            worker_id = "" if slot is None else str(slot.number)
            return counter_key(REQUESTS, values), counter_key(WORKER_REQUESTS, (worker_id,))

        def keys_of_histograms() -> list[str]:
            return [
                *histogram_keys(REQUEST_DURATION_SECONDS, values, self._duration_bounds),
                *histogram_keys(REQUEST_SIZE_BYTES, exchange, self._size_bounds),
                *histogram_keys(RESPONSE_SIZE_BYTES, exchange, self._size_bounds),
            ]

        counters, (requests, worker_requests) = self._store.allocate("counter", counter_keys, counters_on_space)
        cells, indexes = self._store.allocate("histogram", keys_of_histograms, histograms_on_space)
        return counters, requests, worker_requests, cells, *self._split(indexes)

    def _split(self, indexes: Sequence[int]) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Return the indexes of the three histograms; each has its bounds, ``+Inf`` and the sum."""
        durations = len(self._duration_bounds) + 2
        sizes = len(self._size_bounds) + 2
        found = tuple(indexes)
        return found[:durations], found[durations : durations + sizes], found[durations + sizes :]
