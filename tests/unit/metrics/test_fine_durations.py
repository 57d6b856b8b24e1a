"""The fine histogram: what an application always takes is what its quantiles say, to 5 %."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from promgun.collect.reading import InstanceReader
from promgun.metrics.counters import Counters
from promgun.metrics.defaults import DURATION_BUCKETS, SIZE_BUCKETS
from promgun.metrics.fine_durations import FINE_BOUNDS, FINE_DURATIONS, FINE_SCHEMA, WIDEST
from promgun.metrics.recorder import Recorder
from promgun.status.from_store import snapshot_of
from promgun.status.history import History
from promgun.store.board import Role
from promgun.store.process import ProcessStore
from promgun.store.row_format import RowSchema
from tests.support.store_fixtures import Opened, opened


def test_bounds_are_close_enough() -> None:
    assert FINE_BOUNDS[0] == 0.001
    assert FINE_BOUNDS[-1] == 1000.0
    assert all(low < high <= WIDEST * low for low, high in pairwise(FINE_BOUNDS))


def counting(slot: Opened) -> Recorder:
    """Return what counts requests in a slot, as a worker's."""
    slot.store.own_slot()
    return Recorder(slot.store, Counters(slot.store, 1000), DURATION_BUCKETS, SIZE_BUCKETS)


@pytest.mark.parametrize("seconds", [0.00105, 0.0042, 0.0123, 0.999, 1.0, 1.11, 7.77, 59.9, 999.0])
def test_quantiles_of_an_application_that_always_takes_the_same(tmp_path: Path, seconds: float) -> None:
    with opened(tmp_path, Role.WORKER) as first, opened(tmp_path, Role.WORKER) as second:
        recorders = [counting(first), counting(second)]
        reader, history = InstanceReader(tmp_path), History()
        recorders[0].record("GET", "", 200, 0.5, 0, 1)
        history.add(snapshot_of(reader.read(whole=False)))
        for recorder in recorders:
            for route in ("/a", "/b"):
                recorder.record("GET", route, 200, seconds, 0, 1)
        last = snapshot_of(reader.read(whole=False))
        # On a quick machine the two readings are of the same moment.
        last = replace(last, taken=last.taken + 1.0)
        history.add(last)
        interval = history.interval
        assert interval is not None
        assert last.durations[max(last.durations)] == 5
        for value in (interval.p50, interval.p95, interval.p99, interval.longest):
            assert value == pytest.approx(seconds, rel=0.05)


def test_places_move_from_private_memory_into_the_slot(tmp_path: Path) -> None:
    with opened(tmp_path, Role.WORKER) as slot:
        recorder = Recorder(slot.store, Counters(slot.store, 1000), DURATION_BUCKETS, SIZE_BUCKETS)
        recorder.record("GET", "/a", 200, 0.5, 0, 1)
        slot.store.retry_now()
        recorder.record("GET", "/a", 200, 0.5, 0, 1)
        recorder.record("GET", "/b", 200, 0.5, 0, 1)
        durations = snapshot_of(InstanceReader(tmp_path).read(whole=False)).durations
        assert durations[max(durations)] == 3


def test_rows_that_found_their_place_before_the_histogram_count_in_it() -> None:
    """There may be room for the row of a label set alone; a method that a client made up is found by its labels."""
    store = Places()
    recorder = Recorder(store, Counters(ProcessStore(), 1000), DURATION_BUCKETS, SIZE_BUCKETS)  # type: ignore[arg-type]
    for method in ("GET", "MADE-UP"):
        recorder.record(method, "/a", 200, 0.5, 0, 1)
    moved = {schema: array("d", bytes(8 * schema.cells)) for schema, _ in store.placed}
    for schema, placed in sorted(store.placed, key=lambda place: place[0] is FINE_SCHEMA):
        placed(moved[schema], [0])
    for method in ("GET", "MADE-UP"):
        recorder.record(method, "/a", 200, 0.5, 0, 1)
    assert sum(moved[FINE_SCHEMA][:-1]) == 2


class Places:
    """A store that has no room in its files at first; ``placed`` is what it calls once it has."""

    lock = nullcontext()

    def __init__(self) -> None:
        self.placed: list[tuple[RowSchema, Callable[[Any, list[int]], None]]] = []

    def on_detach(self, _: Any) -> None:
        """Fork never."""

    def allocate_row(self, schema: RowSchema, _: Any, placed: Any) -> tuple[Any, list[int]]:
        """Return a place in private memory."""
        self.placed.append((schema, placed))
        return array("d", bytes(8 * schema.cells)), [0]


def test_it_is_added_up_for_a_status_alone(tmp_path: Path) -> None:
    with opened(tmp_path, Role.WORKER) as slot:
        counting(slot).record("GET", "/a", 200, 0.5, 0, 1)
        reading = InstanceReader(tmp_path).read(whole=True)
        assert sum(reading.sums[FINE_DURATIONS].values()) == 1
        assert FINE_DURATIONS not in {name for name, _, _ in reading.values.own}
