"""What a page shows after each single store of a writer, and of one killed there: no sample sinks, whoever reads."""

from __future__ import annotations

import errno
import itertools
import random
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from promgun.collect.families import build_family
from promgun.collect.page import Collector
from promgun.metrics.counters import Counters
from promgun.metrics.defaults import DURATION_BUCKETS, SIZE_BUCKETS
from promgun.metrics.families.requests import (
    REQUEST_DURATION_SECONDS,
    REQUEST_SIZE_BYTES,
    REQUESTS,
    RESPONSE_SIZE_BYTES,
)
from promgun.metrics.fine_durations import FINE_SCHEMA
from promgun.metrics.recorder import Recorder, request_schema
from promgun.store.own_families import OwnFamilies, sum_by
from promgun.store.pending import Places
from promgun.store.process import ProcessStore
from promgun.store.reader import families_of
from promgun.store.row_blocks import counter
from promgun.store.row_format import RowSchema
from promgun.store.row_total import RowTotal
from tests.support.store_fixtures import own_series, samples, sum_of, worker

#: Bodies: none, one that the first bucket has, one that another has.
SIZES = tuple(itertools.product((0, 5, 300), (0, 5, 300)))


#: What the kernel knows of a process goes with it, and is not stored; ``test_processes.py`` has it.
FROM_THE_KERNEL = ("gunicorn_master_cpu", "gunicorn_worker_cpu", "gunicorn_worker_context_switches")


class Killed(Exception):  # noqa: N818 - an event, not an error
    """The writer is killed here."""


class WatchedCells:
    """Cells after each store of which ``after`` is called."""

    def __init__(self, cells: Any, after: Callable[[], None]) -> None:
        self._cells = cells
        self._after = after

    def __getitem__(self, index: int) -> float:
        return float(self._cells[index])

    def __setitem__(self, index: int, value: float) -> None:
        self._cells[index] = value
        self._after()


class WatchedRows:
    """The rows of a store, each store to which calls ``after``; there is no room for them while ``full``."""

    def __init__(self, store: ProcessStore, after: Callable[[], None], *, full: bool = False) -> None:
        self._find = store.in_files.row
        self._after = after
        self.full = full
        store.in_files.row = self.row  # type: ignore[method-assign] # for this store alone

    def row(self, schema: RowSchema, values: tuple[str, ...], instead_of: tuple[str, ...] | None = None) -> Places:
        """Return the place of a row."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        cells, indexes = self._find(schema, values, instead_of)
        return WatchedCells(cells, self._after), indexes


class Page:
    """A page that is read again and again, by a reader that knows all earlier ones and by one that has just started."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lasting = Collector(path)
        self.last: dict[str, float] = {}

    def read(self, when: object = None) -> None:
        """Read it with both; fail when a sample that may only rise sank since the last time, or went."""
        for reader in (Collector(self._path), self._lasting):
            found = samples(
                family
                for family in reader.collect()
                if family.type != "gauge" and not family.name.startswith(FROM_THE_KERNEL)
            )
            sunk = {key: (value, found.get(key)) for key, value in self.last.items() if found.get(key, -1.0) < value}
            assert not sunk, when
            self.last = found

    def counts(self) -> list[float]:
        """Return how many requests each family of them has."""
        histograms = REQUEST_DURATION_SECONDS, REQUEST_SIZE_BYTES, RESPONSE_SIZE_BYTES
        return [sum_of(self.last, name) for name in (REQUESTS.name, *(f"{family.name}_count" for family in histograms))]


def recorder_of(store: ProcessStore) -> Recorder:
    return Recorder(store, Counters(store, 1000), DURATION_BUCKETS, SIZE_BUCKETS)


def killed_at(count: int, before: Callable[[], None]) -> Iterator[None]:
    """Raise :class:`Killed` when advanced so many times; call ``before`` just before."""
    for _ in range(count - 1):
        yield
    before()
    raise Killed


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@pytest.mark.parametrize(("received", "sent"), SIZES)
def test_nothing_sinks_wherever_a_worker_is_killed(tmp_path: Path, received: int, sent: int) -> None:
    """A page may be read after any store of its writer, who may be killed there; the next owner of the slot goes on."""
    page = Page(tmp_path)
    for kills in itertools.count(1):
        with worker(tmp_path) as place:
            page.read(f"another after {kills - 1} kills")
            # Whoever comes next finds something to lower: a bucket of the smallest.
            recorder_of(place.store).record("GET", "/", 200, 0.25, 1, 1)
            page.read(f"recorded after {kills - 1} kills")
            steps = killed_at(kills, lambda: page.read("in the middle"))
            WatchedRows(place.store, partial(next, steps))
            try:
                recorder_of(place.store).record("GET", "/", 200, 0.5, received, sent)
            except Killed:
                page.read(f"killed at store {kills}")
            else:
                break
    page.read("at the end")
    assert kills > 3
    for count in page.counts():
        # Whoever was killed counted the request or did not.
        assert kills + 1 <= count <= 2 * kills


@pytest.mark.parametrize(("received", "sent"), SIZES)
def test_nothing_sinks_while_what_waited_in_memory_moves_in(tmp_path: Path, received: int, sent: int) -> None:
    page = Page(tmp_path)
    with worker(tmp_path) as place:
        recorder_of(place.store).record("GET", "/", 200, 0.5, 1, 1)
        page.read()
    with worker(tmp_path) as place:
        recorder = recorder_of(place.store)
        rows = WatchedRows(place.store, page.read, full=True)
        recorder.record("GET", "/", 200, 0.5, received, sent)
        page.read()
        assert page.counts() == [1.0] * 4
        rows.full = False
        place.retry()
    assert page.counts() == [2.0] * 4


def shown(schema: RowSchema, cells: tuple[float, ...]) -> dict[object, float]:
    """Return all that is shown of one row: its samples, and the sums that a status makes of it."""
    numbers = schema.shown(cells)
    total = RowTotal(schema, ("x",) * len(schema.labels), 0, numbers)
    own = OwnFamilies()
    own.add_rows([total], lambda *_: {})
    series = families_of(own_series(own))
    found: dict[object, float] = {}
    found.update(samples(build_family(name, items) for name, items in series.items()))
    for group in schema.groups:
        counted = counter(schema, group.family)
        assert counted is not None
        found[group.family, "by slot"] = sum(counted(array("d", cells).tobytes()))
        for label in ("le",) if group.bounds else schema.labels:
            found |= {(group.family, label, key): value for key, value in sum_by([total], group.family, label).items()}
    return found


@pytest.mark.parametrize(
    "schema",
    [
        request_schema((0.1, 1.0), (256.0, 4096.0)),
        request_schema((0.1, 1.0), (256.0, 4096.0), streams=True),
        FINE_SCHEMA,
    ],
    ids=["requests", "streams", "fine durations"],
)
def test_no_cell_that_rises_lowers_what_is_shown(schema: RowSchema) -> None:
    """So nothing sinks whatever the order in which a writer stores cells, a kill stops it, and a reader copies them."""
    random_ = random.Random(3)
    cells = tuple(float(random_.randrange(9)) for _ in range(schema.cells))
    before = shown(schema, cells)
    for cell in range(schema.cells):
        after = shown(schema, (*cells[:cell], cells[cell] + 1.0, *cells[cell + 1 :]))
        sunk = {key: (value, after[key]) for key, value in before.items() if after[key] < value}
        assert not sunk, cell
        assert after != before, f"cell {cell} counts nothing"
