"""Snapshots read from a store, without a server: boards and value files made by hand."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from promgun.collect.reading import InstanceReader
from promgun.errors import InstanceError, StoreError
from promgun.instances.page_source import UrlSource
from promgun.metrics.families.requests import REQUEST_DURATION_SECONDS
from promgun.metrics.recorder import request_schema
from promgun.status.from_store import snapshot_of
from promgun.status.snapshot import Snapshot
from promgun.status.source import PageSnapshots, StoreSnapshots, with_names
from promgun.store import format as fmt
from promgun.store.board import Cell, Role
from promgun.store.process import ProcessStore
from promgun.store.reader import StoreReader, SumBy
from promgun.store.row_format import CellGroup, RowSchema
from tests.support import boards
from tests.support.store_fixtures import opened, slots_of, write_file

REQUESTS = "gunicorn_requests_total"
DURATIONS = REQUEST_DURATION_SECONDS.name
SUMS = [SumBy(REQUESTS, REQUESTS, "status"), SumBy(DURATIONS, DURATIONS, "le")]
SCHEMA = request_schema((0.5,), (256.0,))


def reader(store: Path) -> StoreReader:
    """Return a reader that makes two of the sums of a status."""
    return StoreReader(store, sums=SUMS)


def take(store: Path) -> Snapshot:
    """Return a snapshot of a store."""
    return snapshot_of(InstanceReader(store).read(whole=False))


def answer(store: ProcessStore, answered: Mapping[tuple[str, str], float], schema: RowSchema = SCHEMA) -> None:
    """Count so many requests by route and status, each of which took longer than the last bound."""
    first = schema.firsts
    for (route, status), count in answered.items():
        with store.lock:
            cells, indexes = store.allocate_row(schema, ("GET", route, status), lambda *_: None)
        cells[indexes[first[REQUESTS]]] += count
        if DURATIONS in first:
            cells[indexes[first[DURATIONS]] + 1] += count


# -- sums ------------------------------------------------------------------------------------------------------------


def test_sums_are_over_slots_routes_and_methods(tmp_path: Path) -> None:
    with opened(tmp_path) as first, opened(tmp_path) as second:
        answer(first.store, {("/", "200"): 2, ("/b", "200"): 3, ("/", "500"): 1})
        answer(second.store, {("/", "200"): 10})
    read = reader(tmp_path).read_sums()
    assert read == {REQUESTS: {"200": 15.0, "500": 1.0}, DURATIONS: {"0.5": 0.0, "+Inf": 16.0}}


def test_sums_follow_a_file_that_grows_and_one_that_is_made_anew(tmp_path: Path) -> None:
    sums = reader(tmp_path)
    assert sums.read_sums() == {REQUESTS: {}, DURATIONS: {}}
    with opened(tmp_path) as slot:
        answer(slot.store, {("/", "200"): 2})
        assert sums.read_sums()[REQUESTS] == {"200": 2.0}
        answer(slot.store, {("/", "404"): 1})
        assert sums.read_sums()[REQUESTS] == {"200": 2.0, "404": 1.0}
    (slots_of(tmp_path) / "1").unlink()
    with opened(tmp_path) as slot:
        answer(slot.store, {("/", "503"): 7, ("/", "200"): 9})
        assert sums.read_sums()[REQUESTS] == {"503": 7.0, "200": 9.0}


def test_sums_know_what_is_not_ours_and_what_is_damaged(tmp_path: Path) -> None:
    with opened(tmp_path) as slot:
        answer(slot.store, {("/", "200"): 1})
        other = RowSchema(("kind",), (CellGroup("shop_total", ("kind",)),))
        slot.store.allocate_row(other, ("a",), lambda *_: None)
    slots = slots_of(tmp_path)
    write_file(slots / "1.counter", {fmt.series_key("gunicorn_requests", REQUESTS, {"status": "200"}, ""): 99.0})
    (slots / "2").write_bytes(b"")
    (slots / "3").write_bytes(b"\xff" * 100_000)
    (slots / "4").symlink_to(slots / "1")
    os.mkfifo(slots / "5")
    assert reader(tmp_path).read_sums()[REQUESTS] == {"200": 1.0}


def test_buckets_that_a_reload_has_changed_are_summed_by_their_bounds(tmp_path: Path) -> None:
    with opened(tmp_path) as slot:
        answer(slot.store, {("/", "200"): 2})
        answer(slot.store, {("/", "200"): 3}, request_schema((0.25, 0.5), (256.0,)))
    sums = reader(tmp_path).read_sums()
    assert sums == {REQUESTS: {"200": 5.0}, DURATIONS: {"0.25": 0.0, "0.5": 3.0, "+Inf": 2.0}}


def test_a_store_that_is_gone_has_no_sums(tmp_path: Path) -> None:
    assert reader(tmp_path / "gone").read_sums() == {REQUESTS: {}, DURATIONS: {}}


# -- boards ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[ProcessStore]:
    """The store of this process, which says that it is a worker that has booted, in slot 1."""
    with opened(tmp_path, Role.WORKER) as found:
        assert found.store.own_slot() == 1
        cells = found.store.board.cells
        cells[Cell.BOOTED] = time.monotonic_ns()
        cells[Cell.CAPACITY] = 4
        cells[Cell.TIMEOUT] = 60 * 10**9
        yield found.store


def begin(store: ProcessStore, path: str, seconds_ago: float = 0.0) -> None:
    """Write down that the worker serves a request."""
    start = time.monotonic_ns() - int(seconds_ago * 1e9)
    boards.begin(store.board, start, f"GET\0/users/<id>\x0010.0.0.1\0\0{path}" if path else "")


def test_snapshot_tells_of_running_requests_without_their_query(tmp_path: Path, worker: ProcessStore) -> None:
    begin(worker, "/users/7?token=secret#part", 5.0)
    begin(worker, "")
    seen = take(tmp_path)
    shown = seen.workers[1]
    assert (shown.pid, shown.state, shown.in_progress, shown.capacity) == (os.getpid(), "busy", 2, 4)
    assert (shown.websockets, shown.in_use, shown.loop_lag) == (0, 2, None)
    cells = worker.board.cells
    cells[Cell.WEBSOCKETS], cells[Cell.LOOP_WINDOW] = 4, 1
    watched = take(tmp_path).workers[1]
    assert (watched.websockets, watched.in_use, watched.loop_lag) == (3, 5, 0)
    assert [(request.phase, request.path) for request in shown.running] == [
        ("application", "/users/7"),
        ("reading", ""),
    ]
    assert 5.0 <= shown.oldest_request < 60
    assert shown.memory is not None
    assert shown.memory > 1 << 20
    assert seen.slots[1].busy >= 5.0
    assert seen.slots[1].cpu > 0
    assert not seen.up, "there is no master"


def test_requests_left_only_with_the_option(tmp_path: Path, worker: ProcessStore) -> None:
    assert take(tmp_path).workers[1].requests_left is None
    worker.board.cells[Cell.MAX_REQUESTS] = 10
    worker.board.cells[Cell.SERVED] = 4
    assert take(tmp_path).workers[1].requests_left == 6


def test_hung_worker_is_told_like_any_other(tmp_path: Path, worker: ProcessStore) -> None:
    worker.board.cells[Cell.HEARTBEAT] = time.monotonic_ns() - 31 * 10**9
    assert take(tmp_path).workers[1].state == "hung"


# -- sources ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("worker")
def test_store_without_a_master_is_no_instance(tmp_path: Path) -> None:
    source = StoreSnapshots(tmp_path)
    with pytest.raises(InstanceError, match="no instance runs on the store"):
        source.snapshot()
    with opened(tmp_path, Role.MASTER) as master:
        master.store.own_slot()
        master.store.flush()
        assert source.snapshot().up, "and may come back"


def test_directory_that_is_none_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read the store"):
        StoreSnapshots(tmp_path / "gone").snapshot()


def test_page_is_asked_for_what_is_needed_only() -> None:
    url = with_names("127.0.0.1:9164?x=1")
    assert url.startswith("http://127.0.0.1:9164?x=1&name%5B%5D=")
    assert with_names("unix:/run/m.sock") == "unix:/run/m.sock"
    assert with_names("http://[nonsense") == "http://[nonsense"


def test_directory_that_was_named_at_the_start_is_looked_into(tmp_path: Path) -> None:
    """``--metrics-dir DIR``: the run is below it."""
    with opened(tmp_path / ".promgun", Role.MASTER) as master:
        master.store.own_slot()
        master.store.flush()
        assert StoreSnapshots(tmp_path).snapshot().up


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/metrics", "unix:/nonexistent/metrics.sock"])
def test_page_that_does_not_answer_is_named_as_it_was_given(url: str) -> None:
    with pytest.raises(InstanceError, match=r"does not answer") as told:
        PageSnapshots(UrlSource(url)).snapshot()
    assert url in told.value.message
    assert "name%5B%5D" not in str(told.value)
