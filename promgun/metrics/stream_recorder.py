"""Counts answers whose first byte was sent before they ended: streams, files, long bodies."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from promgun.metrics.counters import Counters
from promgun.metrics.families.requests import RESPONSE_START_SECONDS
from promgun.metrics.recorder import Recorder
from promgun.store.exclusive import has_gil
from promgun.store.process import ProcessStore


class StreamRecorder(Recorder):
    """Counts streamed answers as any others, in rows that have their times to the first byte as well.

    ``counters`` decide, as for the others, which label sets are folded. ``cpu_cells`` are those of the recorder that
    counts CPU time, to which the rows of streams add theirs; ``None`` where none does. A row is made by the first
    stream of its label set, so an application without streams has none.
    """

    def __init__(
        self,
        store: ProcessStore,
        counters: Counters,
        duration_bounds: Sequence[float],
        size_bounds: Sequence[float],
        cpu_cells: dict[str, tuple[Any, int]] | None = None,
    ) -> None:
        super().__init__(store, counters, duration_bounds, size_bounds, cpu=cpu_cells is not None, streams=True)
        if cpu_cells is not None:
            self._cpu = cpu_cells
        self._start_cell = self._schema.firsts[RESPONSE_START_SECONDS.name]
        self._locked = not has_gil()

    def record_stream(
        self, method: str, route: str, status: int, seconds: float, received: int, sent: int, start: float
    ) -> None:
        """Count one answered request whose first byte was sent ``start`` seconds after its head was read."""
        self.record(method, route, status, seconds, received, sent)
        row = self._rows.get((method, route, status)) or self._row(method, route, status)
        # The counter is a row's first cell.
        cells, first = row[0], row[1] + self._start_cell
        if self._locked:
            with self._store.lock:
                self._observe(cells, first, start)
            return
        self._observe(cells, first, start)

    def _observe(self, cells: Any, first: int, start: float) -> None:
        bounds = self._duration_bounds
        cells[first + bisect_left(bounds, start)] += 1.0
        cells[first + len(bounds) + 1] += start
