"""The reading: which master is the newest, what belongs to a slot, and one reader for page and status."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from promgun.collect.live_families import GROUPS
from promgun.collect.page import Collector
from promgun.collect.reading import InstanceReader, Master, newest_first
from promgun.collect.slot_owners import SlotOwner
from promgun.metrics.catalog import CATALOG
from promgun.status.from_store import snapshot_of
from promgun.store.board import BoardView, Cell, Role
from promgun.store.master_info import MasterFacts, write_facts
from promgun.store.process import ProcessStore
from promgun.store.run_reader import master_slot
from tests.support.store_fixtures import open_directory, opened, release, slots_of

FACTS = MasterFacts(
    slot=0,
    pid=os.getpid(),
    started=1000.0,
    name="a",
    application="shop:app",
    worker_type="sync",
    gunicorn="27.0.1",
    promgun="0.1.0",
)


def master(slot: int, claimed: int, started: float | None) -> Master:
    cells = [0] * 64
    cells[Cell.CLAIMED] = claimed
    facts = None if started is None else replace(FACTS, slot=slot, started=started)
    return Master(SlotOwner(BoardView(slot, tuple(cells)), alive=True), facts)


@pytest.fixture
def stores() -> Iterator[ExitStack]:
    """The stores of other processes, as long as the test runs."""
    with ExitStack() as stack:
        yield stack


def begin(stores: ExitStack, path: Path, role: Role) -> ProcessStore:
    """Begin as a process of the run with this role."""
    store = stores.enter_context(opened(path, role)).store
    assert store.own_slot() is not None
    store.flush()
    return store


def tell(master: ProcessStore, facts: MasterFacts) -> None:
    """Write the facts of a master, and its board."""
    assert master.directory is not None
    assert master.number is not None
    write_facts(master.directory, replace(facts, slot=master.number))
    master.flush()


def test_the_newest_master_is_told_by_its_start_whatever_its_slot_and_the_clock() -> None:
    """A clock set back made the newest one old; the lowest free slot is often the newest one's."""
    newest, second, oldest = master(0, 300, 1000.0), master(7, 200, 9000.0), master(3, 100, 2000.0)
    for found in permutations((newest, second, oldest)):
        assert newest_first(found) == (newest, second, oldest)


def test_a_master_that_still_boots_stands_behind_those_that_serve() -> None:
    booting, serving = master(0, 300, None), master(1, 200, 1.0)
    assert newest_first([serving, booting]) == newest_first([booting, serving]) == (serving, booting)


def test_page_and_status_tell_of_the_same_master(tmp_path: Path, stores: ExitStack) -> None:
    newer, older = (begin(stores, tmp_path, Role.MASTER) for _ in range(2))
    begin(stores, tmp_path, Role.WORKER)
    older.board.cells[Cell.CLAIMED] = time.monotonic_ns() - 500 * 10**9
    older.board.cells[Cell.TARGET] = newer.board.cells[Cell.TARGET] = 2
    tell(older, replace(FACTS, worker_type="sync", started=9e9))
    tell(newer, replace(FACTS, worker_type="gthread", name="b"))
    reading = InstanceReader(tmp_path).read(whole=False)
    assert [owner.slot for owner in reading.owners] == [master_slot(1), master_slot(0), 1]
    snapshot = snapshot_of(reading)
    assert (snapshot.info["worker_type"], snapshot.details.name, snapshot.target) == ("gthread", "b", 4)
    assert snapshot.uptime is not None
    assert snapshot.uptime < 400
    families = {family.name: family for family in Collector(tmp_path).collect()}
    assert [sample.labels["worker_type"] for sample in families["gunicorn_info"].samples] == ["gthread"]
    assert families["gunicorn_master_uptime_seconds"].samples[0].value < 400


def test_a_new_master_does_not_take_the_last_ones_reload_for_its_own(tmp_path: Path, stores: ExitStack) -> None:
    last = begin(stores, tmp_path, Role.MASTER)
    last.board.cells[Cell.LAST_RELOAD] = 1_000_000
    last.flush()
    assert "gunicorn_last_reload_timestamp_seconds" in {family.name for family in Collector(tmp_path).collect()}
    release(last)
    assert begin(stores, tmp_path, Role.MASTER).number == 0
    assert "gunicorn_last_reload_timestamp_seconds" not in {family.name for family in Collector(tmp_path).collect()}


def test_masters_have_no_slot_and_no_totals(tmp_path: Path, stores: ExitStack) -> None:
    begin(stores, tmp_path, Role.MASTER)
    begin(stores, tmp_path, Role.WORKER)
    totals = InstanceReader(tmp_path).read(whole=True).totals
    assert totals.keys() == {1}
    assert totals[1].user > 0
    families = {family.name: family for family in Collector(tmp_path).collect()}
    assert [sample.value for sample in families["promgun_store_slots"].samples] == [1.0]


def test_every_group_of_the_catalogue_is_computed_by_a_function() -> None:
    assert GROUPS.keys() == {spec.group for spec in CATALOG}


def test_damage_that_a_status_finds_is_told_by_the_next_page(tmp_path: Path) -> None:
    told: list[str] = []
    collector = Collector(tmp_path, told.append)
    open_directory(tmp_path).close()
    (slots_of(tmp_path) / "1.counter").write_bytes(b"garbage" * 100)
    snapshot_of(collector.read())
    assert not told
    collector.collect()
    collector.collect()
    assert len(told) == 1
