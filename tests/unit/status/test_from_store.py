"""Snapshots read from a store, without a server: boards and value files made by hand."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.collect.reading import InstanceReader, sums_wanted
from promgun.errors import InstanceError, StoreError
from promgun.instances.page_source import UrlSource
from promgun.metrics.catalog import BY_NAME
from promgun.status.from_store import snapshot_of
from promgun.status.snapshot import Snapshot
from promgun.status.source import PageSnapshots, StoreSnapshots, with_names
from promgun.store import format as fmt
from promgun.store.board import Cell, Role
from promgun.store.files import Owner
from promgun.store.reader import StoreReader
from promgun.store.slots import Slot, claim
from tests.support import boards

REQUESTS = "gunicorn_requests_total"
DURATIONS = "gunicorn_request_duration_seconds_bucket"
SUMS = [wanted for wanted in sums_wanted() if wanted.sample in {REQUESTS, DURATIONS}]


def reader(store: Path) -> StoreReader:
    """Return a reader that makes two of the sums of a status."""
    return StoreReader(store, sums=SUMS)


def take(store: Path) -> Snapshot:
    """Return a snapshot of a store."""
    return snapshot_of(InstanceReader(store).read(whole=False))


def entry(sample: str, value: float, **labels: str) -> bytes:
    """One entry of a value file, with its value."""
    spec = BY_NAME.get(sample.removesuffix("_bucket"))
    key = fmt.series_key(spec.family if spec else sample, sample, labels, "Help.")
    return fmt.encode_entry(key)[:-16] + struct.pack("dd", value, 0.0)


def write(path: Path, *entries: bytes, edition: int = 0) -> None:
    """Make a value file that holds just these entries."""
    body = b"".join(entries)
    path.write_bytes(fmt.encode_header(fmt.HEADER_SIZE + len(body), edition) + body)


def answered(value: float, status: str, route: str = "/") -> bytes:
    return entry(REQUESTS, value, method="GET", route=route, status=status)


# -- sums ------------------------------------------------------------------------------------------------------------


def test_sums_are_over_slots_routes_and_methods(tmp_path: Path) -> None:
    write(tmp_path / "counter_slot1.db", answered(2, "200"), answered(3, "200", "/b"), answered(1, "500"))
    write(tmp_path / "counter_slot2.db", answered(10, "200"))
    labels = {"method": "GET", "route": "/", "status": "200"}
    write(tmp_path / "histogram_slot2.db", *(entry(DURATIONS, 1, le=le, **labels) for le in ("0.5", "+Inf")))
    read = reader(tmp_path).read_sums()
    assert read == {REQUESTS: {"200": 15.0, "500": 1.0}, DURATIONS: {"0.5": 1.0, "+Inf": 1.0}}


def test_sums_follow_a_file_that_grows_and_one_that_is_made_anew(tmp_path: Path) -> None:
    sums = reader(tmp_path)
    assert sums.read_sums() == {REQUESTS: {}, DURATIONS: {}}
    write(tmp_path / "counter_slot1.db", answered(2, "200"))
    assert sums.read_sums()[REQUESTS] == {"200": 2.0}
    with (tmp_path / "counter_slot1.db").open("r+b") as file:
        file.write(fmt.encode_header(len((tmp_path / "counter_slot1.db").read_bytes()) + len(answered(1, "404"))))
        file.seek(0, os.SEEK_END)
        file.write(answered(1, "404"))
    assert sums.read_sums()[REQUESTS] == {"200": 2.0, "404": 1.0}
    write(tmp_path / "counter_slot1.db", answered(7, "503"), answered(9, "200"), edition=1)
    assert sums.read_sums()[REQUESTS] == {"503": 7.0, "200": 9.0}
    (tmp_path / "counter_slot1.db").unlink()
    assert sums.read_sums()[REQUESTS] == {}


def test_sums_know_what_is_not_ours_and_what_is_damaged(tmp_path: Path) -> None:
    foreign = entry(REQUESTS, 99, status="200")
    write(tmp_path / "counter_slot1.db", foreign, entry("shop_total", 5, kind="a"), answered(1, "200"))
    (tmp_path / "counter_slot2.db").write_bytes(b"")
    (tmp_path / "counter_slot3.db").write_bytes(fmt.encode_header(1 << 20) + b"\xff" * 64)
    (tmp_path / "counter_slot4.db").symlink_to(tmp_path / "counter_slot1.db")
    os.mkfifo(tmp_path / "counter_slot5.db")
    write(tmp_path / "gauge_all_slot1.db", answered(50, "200"))
    assert reader(tmp_path).read_sums()[REQUESTS] == {"200": 1.0}


def test_a_store_that_is_gone_has_no_sums(tmp_path: Path) -> None:
    assert reader(tmp_path / "gone").read_sums() == {REQUESTS: {}, DURATIONS: {}}


# -- boards ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Slot]:
    """A slot whose owner, this process, says that it is a worker that has booted."""
    slot = claim(tmp_path, Owner())
    slot.take_over(Role.WORKER)
    cells = slot.board.cells
    cells[Cell.BOOTED] = time.monotonic_ns()
    cells[Cell.CAPACITY] = 4
    cells[Cell.TIMEOUT] = 60 * 10**9
    yield slot
    slot.release()


def begin(slot: Slot, path: str, seconds_ago: float = 0.0) -> None:
    """Write down that the worker serves a request."""
    start = time.monotonic_ns() - int(seconds_ago * 1e9)
    boards.begin(slot.board, start, f"GET\0/users/<id>\x0010.0.0.1\0\0{path}" if path else "")


def test_snapshot_tells_of_running_requests_without_their_query(tmp_path: Path, worker: Slot) -> None:
    begin(worker, "/users/7?token=secret#part", 5.0)
    begin(worker, "")
    seen = take(tmp_path)
    shown = seen.workers[worker.number]
    assert (shown.pid, shown.state, shown.in_progress, shown.capacity) == (os.getpid(), "busy", 2, 4)
    assert [(request.phase, request.path) for request in shown.running] == [
        ("application", "/users/7"),
        ("reading", ""),
    ]
    assert 5.0 <= shown.oldest_request < 60
    assert shown.memory is not None
    assert shown.memory > 1 << 20
    assert seen.slots[worker.number].busy >= 5.0
    assert seen.slots[worker.number].cpu > 0
    assert not seen.up, "there is no master"


def test_requests_left_only_with_the_option(tmp_path: Path, worker: Slot) -> None:
    assert take(tmp_path).workers[worker.number].requests_left is None
    worker.board.cells[Cell.MAX_REQUESTS] = 10
    worker.board.cells[Cell.SERVED] = 4
    assert take(tmp_path).workers[worker.number].requests_left == 6


def test_hung_worker_is_told_like_any_other(tmp_path: Path, worker: Slot) -> None:
    worker.board.cells[Cell.HEARTBEAT] = time.monotonic_ns() - 31 * 10**9
    assert take(tmp_path).workers[worker.number].state == "hung"


# -- sources ---------------------------------------------------------------------------------------------------------


def test_store_without_a_master_is_no_instance(tmp_path: Path, worker: Slot) -> None:
    source = StoreSnapshots(tmp_path)
    with pytest.raises(InstanceError, match="no instance runs on the store"):
        source.snapshot()
    worker.board.cells[Cell.ROLE] = Role.MASTER
    assert source.snapshot().up, "and may come back"


def test_directory_that_is_none_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read the store"):
        StoreSnapshots(tmp_path / "gone").snapshot()


def test_page_is_asked_for_what_is_needed_only() -> None:
    url = with_names("127.0.0.1:9164?x=1")
    assert url.startswith("http://127.0.0.1:9164?x=1&name%5B%5D=")
    assert with_names("unix:/run/m.sock") == "unix:/run/m.sock"
    assert with_names("http://[nonsense") == "http://[nonsense"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/metrics", "unix:/nonexistent/metrics.sock"])
def test_page_that_does_not_answer_is_named_as_it_was_given(url: str) -> None:
    with pytest.raises(InstanceError, match=r"does not answer") as told:
        PageSnapshots(UrlSource(url)).snapshot()
    assert url in told.value.message
    assert "name%5B%5D" not in str(told.value)
