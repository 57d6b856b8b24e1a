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
from promgun.store.files import Owner
from promgun.store.master_info import MasterFacts, write_facts
from promgun.store.slots import Slot, claim

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
def slots(tmp_path: Path) -> Iterator[list[Slot]]:
    """Three slots, owned by this process."""
    with ExitStack() as stack:
        taken = [claim(tmp_path, Owner()) for _ in range(3)]
        for slot in taken:
            stack.callback(slot.release)
        yield taken


def test_the_newest_master_is_told_by_its_start_whatever_its_slot_and_the_clock() -> None:
    """A clock set back made the newest one old; the lowest free slot is often the newest one's."""
    newest, second, oldest = master(0, 300, 1000.0), master(7, 200, 9000.0), master(3, 100, 2000.0)
    for found in permutations((newest, second, oldest)):
        assert newest_first(found) == (newest, second, oldest)


def test_a_master_that_still_boots_stands_behind_those_that_serve() -> None:
    booting, serving = master(0, 300, None), master(1, 200, 1.0)
    assert newest_first([serving, booting]) == newest_first([booting, serving]) == (serving, booting)


def test_page_and_status_tell_of_the_same_master(tmp_path: Path, slots: list[Slot]) -> None:
    newer, worker, older = slots
    older.take_over(Role.MASTER)
    worker.take_over(Role.WORKER)
    newer.take_over(Role.MASTER)
    older.board.cells[Cell.CLAIMED] = time.monotonic_ns() - 500 * 10**9
    older.board.cells[Cell.TARGET] = newer.board.cells[Cell.TARGET] = 2
    write_facts(tmp_path, replace(FACTS, slot=older.number, worker_type="sync", started=9e9), None, None)
    write_facts(tmp_path, replace(FACTS, slot=newer.number, worker_type="gthread", name="b"), None, None)
    snapshot = snapshot_of(InstanceReader(tmp_path).read(whole=False))
    assert (snapshot.info["worker_type"], snapshot.details.name, snapshot.target) == ("gthread", "b", 4)
    assert snapshot.uptime is not None
    assert snapshot.uptime < 400
    families = {family.name: family for family in Collector(tmp_path).collect()}
    assert [sample.labels["worker_type"] for sample in families["gunicorn_info"].samples] == ["gthread"]
    assert families["gunicorn_master_uptime_seconds"].samples[0].value < 400


def test_a_new_master_does_not_take_the_last_ones_reload_for_its_own(tmp_path: Path, slots: list[Slot]) -> None:
    slots[0].take_over(Role.MASTER)
    slots[0].board.cells[Cell.LAST_RELOAD] = 1_000_000
    slots[0].take_over(Role.MASTER)
    assert "gunicorn_last_reload_timestamp_seconds" not in {family.name for family in Collector(tmp_path).collect()}


def test_what_a_master_uses_is_not_counted_for_the_worker_that_had_its_slot(tmp_path: Path, slots: list[Slot]) -> None:
    slots[0].take_over(Role.WORKER)
    slots[0].take_over(Role.MASTER)
    slots[1].take_over(Role.WORKER)
    totals = InstanceReader(tmp_path).read(whole=True).totals
    assert totals.keys() == {0, 1}
    assert (totals[0].user, totals[0].system) == (0, 0)
    assert totals[1].user > 0


def test_every_group_of_the_catalogue_is_computed_by_a_function() -> None:
    assert GROUPS.keys() == {spec.group for spec in CATALOG}


def test_damage_that_a_status_finds_is_told_by_the_next_page(tmp_path: Path) -> None:
    told: list[str] = []
    collector = Collector(tmp_path, told.append)
    (tmp_path / "counter_slot0.db").write_bytes(b"garbage" * 100)
    snapshot_of(collector.read())
    assert not told
    collector.collect()
    collector.collect()
    assert len(told) == 1
