"""The accounting of one request: one call, in place, no formatting and nothing that grows.

A *row* holds where a (method, route, status) counts: the cells of the counter file and of the histogram file and the
indexes of its series in them.
Rows are made once a label set and process. Every ``cells[index] += x`` with ``x`` in a local is atomic under the GIL
(see ``store.values``); on a
free-threaded build one lock is taken around all of them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

from promgun.metrics.catalog import BY_NAME, METHODS, OTHER_METHOD, OVERFLOW
from promgun.metrics.counters import Counters, counter_key, histogram_keys
from promgun.store.process import ProcessStore
from promgun.store.values import has_gil

REQUESTS = BY_NAME["gunicorn_requests_total"]
DURATION = BY_NAME["gunicorn_request_duration_seconds"]
REQUEST_SIZE = BY_NAME["gunicorn_request_size_bytes"]
RESPONSE_SIZE = BY_NAME["gunicorn_response_size_bytes"]
WORKER_REQUESTS = BY_NAME["gunicorn_worker_requests_total"]

_METHODS = frozenset(METHODS)


class Row(NamedTuple):
    """Where one (method, route, status) counts; the last index of each histogram is its sum."""

    counters: Any
    requests: int
    worker_requests: int
    histograms: Any
    duration: Sequence[int]
    received: Sequence[int]
    sent: Sequence[int]


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
        self._homeless: list[tuple[str, str, int]] = []
        self._lock = None if has_gil() else Lock()
        store.on_detach(self._detach)

    def _detach(self) -> None:
        self._rows = {}
        self._homeless = []

    def record(self, method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Count one answered request; ``seconds`` from head to last byte, ``received`` and ``sent`` body bytes."""
        row = self._rows.get((method, route, status))
        if row is None:
            row = self._row(method, route, status)
        if self._lock is not None:
            with self._lock:
                self._add(row, seconds, received, sent)
            return
        counters, requests, worker_requests, cells, duration, size_in, size_out = row
        counters[requests] += 1.0
        counters[worker_requests] += 1.0
        bucket = duration[bisect_left(self._duration_bounds, seconds)]
        cells[bucket] += 1.0
        total = duration[-1]
        cells[total] += seconds
        # Most requests have no body, and 0 is always in the first bucket.
        bucket = size_in[bisect_left(self._size_bounds, received) if received else 0]
        cells[bucket] += 1.0
        if received:
            total = size_in[-1]
            cells[total] += received
        bucket = size_out[bisect_left(self._size_bounds, sent)]
        cells[bucket] += 1.0
        total = size_out[-1]
        cells[total] += sent

    def _add(self, row: Row, seconds: float, received: int, sent: int) -> None:
        row.counters[row.requests] += 1.0
        row.counters[row.worker_requests] += 1.0
        for indexes, bounds, value in (
            (row.duration, self._duration_bounds, seconds),
            (row.received, self._size_bounds, received),
            (row.sent, self._size_bounds, sent),
        ):
            row.histograms[indexes[bisect_left(bounds, value)]] += 1.0
            row.histograms[indexes[-1]] += value

    @staticmethod
    def known_method(method: str) -> str:
        """Return ``method``, or ``_OTHER`` for one that no RFC names."""
        return method if method in _METHODS else OTHER_METHOD

    def _row(self, method: str, route: str, status: int) -> Row:
        identity = (method, route, status)
        known = self.known_method(method)
        values = self._counters.fold(REQUESTS.name, (known, route, f"{status:03d}"))
        if values[1] == OVERFLOW or known != method:
            # Do not remember what a client made up: the folded row is remembered under its own name only.
            identity = (known, values[1], status)
            row = self._rows.get(identity)
            if row is not None:
                return row
        try:
            row = self._make_row(*identity)
        except OSError as error:
            self._store.count_error(error)
            row = self._private_row()
            self._homeless.append(identity)
        self._rows[identity] = row
        return row

    def _make_row(self, method: str, route: str, status: int) -> Row:
        exchange = (method, route)
        values = (*exchange, f"{status:03d}")
        slot = self._store.own_slot()
        worker_id = "" if slot is None else str(slot.number)
        counters, (requests, worker_requests) = self._store.places(
            "counter", (counter_key(REQUESTS, values), counter_key(WORKER_REQUESTS, (worker_id,)))
        )
        durations = len(self._duration_bounds) + 2
        sizes = len(self._size_bounds) + 2
        cells, indexes = self._store.places(
            "histogram",
            [
                *histogram_keys(DURATION, values, self._duration_bounds),
                *histogram_keys(REQUEST_SIZE, exchange, self._size_bounds),
                *histogram_keys(RESPONSE_SIZE, exchange, self._size_bounds),
            ],
        )
        return Row(
            counters,
            requests,
            worker_requests,
            cells,
            tuple(indexes[:durations]),
            tuple(indexes[durations : durations + sizes]),
            tuple(indexes[durations + sizes :]),
        )

    def _private_row(self) -> Row:
        durations = len(self._duration_bounds) + 2
        sizes = len(self._size_bounds) + 2
        ends = (durations, durations + sizes, durations + 2 * sizes)
        return Row(
            array("d", (0.0, 0.0)),
            0,
            1,
            array("d", bytes(8 * ends[2])),
            tuple(range(ends[0])),
            tuple(range(ends[0], ends[1])),
            tuple(range(ends[1], ends[2])),
        )

    def retry(self) -> None:
        """Move rows that wait in private memory into the files, if they can be had now."""
        waiting, self._homeless = self._homeless, []
        for position, identity in enumerate(waiting):
            try:
                row = self._make_row(*identity)
            except OSError:
                self._homeless.extend(waiting[position:])
                return
            old = self._rows[identity]
            self._rows[identity] = row
            row.counters[row.requests] += old.counters[old.requests]
            row.counters[row.worker_requests] += old.counters[old.worker_requests]
            for new, at in ((row.duration, old.duration), (row.received, old.received), (row.sent, old.sent)):
                for index, private in zip(new, at, strict=True):
                    row.histograms[index] += old.histograms[private]
