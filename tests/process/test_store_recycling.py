"""Processes come and go: what is shown only rises, is exact, and takes no more room than those alive at once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from promgun.metrics.counters import Counters
from promgun.metrics.defaults import DURATION_BUCKETS, SIZE_BUCKETS
from promgun.metrics.recorder import Recorder
from promgun.store.board import Role
from promgun.store.format import series_key
from promgun.store.process import ProcessStore
from promgun.store.reader import StoreReader
from promgun.store.run_reader import is_alive
from promgun.store.slot_lock import SlotLock
from tests.support.sandbox import wait_until
from tests.support.store_fixtures import (
    ROOT,
    client_of,
    fork,
    in_fresh_interpreter,
    key_of,
    open_directory,
    page_totals,
    samples,
    slots_of,
    stock_totals,
    sum_of,
    totals,
    worker_boards,
)

if TYPE_CHECKING:
    from promgun.collect.page import Collector

pytestmark = pytest.mark.unmeasured("hundreds of processes, each of which would write what it ran")

REQUESTS = "gunicorn_requests_total"
ALIVE_AT_ONCE = 8
ENDLESS = 1_000
BORN_AT_LEAST = 30
GAUGE = series_key("g", "g", {}, "Help.")

RUN = "import sys; sys.argv[1:1] = []; from tests.support.store_fixtures import run_here; run_here()"


@contextmanager
def running(function: Callable[..., Any], *arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """Call a function of this module in an interpreter of its own, which is told to stop by the end of its input."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN, __file__, function.__name__, json.dumps(arguments, default=str)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# ---- bounded for ever


def _state(path: Path) -> list[Any]:
    """What there is to read: the names and sizes of all files of slots, and the number of series."""
    reading = StoreReader(path).read(lambda *_: {})
    files = sorted((entry.name, entry.stat().st_size) for entry in os.scandir(slots_of(path)))
    return [files, len(reading.series), reading.size]


def bury(store: ProcessStore, slot: SlotLock | None) -> None:
    """Do what a master does when a worker has ended."""
    assert slot is not None
    store.forget([slot])


def add_to(store: ProcessStore, kind: str, key: str, amount: float) -> None:
    """Add to a series of the application's, as its value would."""

    def stays(_cells: Any, _indexes: Any) -> None:
        raise AssertionError("there was no place at once")

    cells, (index, *_) = store.allocate(kind, [key], stays)
    cells[index] += amount


def lasting_of(found: dict[str, float]) -> dict[str, float]:
    """Return what outlives a process: a live gauge goes when the next one takes its slot, or its owner is asked for."""
    return {key: value for key, value in found.items() if not key.startswith("g{")}


def _recycle(path: str, count: int, early: int) -> list[Any]:
    """Fork processes that count and end, several at once; a few are killed, which must cost nothing they counted."""
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot(Role.MASTER)
    living: dict[int, SlotLock] = {}
    states = []

    def work() -> None:
        add_to(store, "counter", key_of(1), 1.0)
        pid = os.getpid()
        if pid % 10 == 0:
            add_to(store, "gauge_livesum", GAUGE, 1.0)
        if pid % 3 == 0:
            os.kill(pid, signal.SIGKILL)

    for number in range(count):
        while len(living) >= ALIVE_AT_ONCE:
            pid, _ = os.wait()
            bury(store, living.pop(pid))
        slot = store.reserve()
        assert slot is not None
        living[fork(work)] = slot
        if number == early:
            states.append(_state(Path(path)))
    for pid in list(living):
        os.waitpid(pid, 0)
        bury(store, living.pop(pid))
    states.append(_state(Path(path)))
    return states


@pytest.mark.time_limit(1200)
def test_a_thousand_processes_leave_what_a_hundred_leave(tmp_path: Path) -> None:
    early, late = in_fresh_interpreter(_recycle, tmp_path, ENDLESS, 100, timeout=1190)
    names = [name for name, _ in late[0]]
    slots = len([name for name in names if name.endswith(".lock")])
    assert slots <= ALIVE_AT_ONCE + 1
    # Live gauges come and go with their owners; everything else is as it was in the beginning.
    lasting = [name for name in names if "gauge_live" not in name]
    numbers = range(1, slots + 1)
    assert lasting == sorted(
        [f"{n}{ending}" for n in numbers for ending in ("", ".counter", ".lock")] + ["folding-begun"]
    )
    assert [entry for entry in late[0] if entry[0] in lasting] == [entry for entry in early[0] if entry[0] in lasting]
    assert lasting_of(totals(tmp_path)) == lasting_of(stock_totals(tmp_path)) == {"c_total{n=1}": float(ENDLESS)}
    assert not any(map(is_alive, worker_boards(tmp_path)))


# ---- only rising


def collector_of(path: Path, complaints: list[str]) -> Collector:
    from promgun.collect.page import Collector  # noqa: PLC0415 - too heavy for the processes that are forked all the time

    return Collector(path, complaints.append)


def _storm(path: str, seconds: float, seed: int) -> list[int]:
    """Four workers at a time count, make label sets and are killed at any moment; each count is told beforehand.

    Return how many requests were begun, how many were done for certain, and how many workers there were.
    """
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot(Role.MASTER)
    random_ = random.Random(seed)
    begun_file, done_file = Path(path, "begun"), Path(path, "done")
    begun_fd = os.open(begun_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    done_fd = os.open(done_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    living: dict[int, SlotLock] = {}
    born = 0

    def work(number: int) -> None:
        recorder = Recorder(store, Counters(store, 300), DURATION_BUCKETS, SIZE_BUCKETS)
        mine = random.Random(number)
        while True:
            route = f"/{number % 50}/{mine.randrange(20)}"
            os.write(begun_fd, b"x")
            # A sum of 1024ths is exact in whatever order a reader adds them up.
            seconds = mine.randrange(1024) / 1024
            recorder.record("GET", route, 200, seconds, mine.randrange(5000), mine.randrange(5000))
            os.write(done_fd, b"x")

    end = time.monotonic() + seconds
    while time.monotonic() < end or born <= BORN_AT_LEAST:
        while len(living) < 4:
            slot = store.reserve()
            assert slot is not None
            living[fork(partial(work, born))] = slot
            born += 1
        time.sleep(random_.uniform(0.005, 0.06))
        victim = random_.choice(list(living))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        bury(store, living.pop(victim))
    for pid in living:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return [begun_file.stat().st_size, done_file.stat().st_size, born]


def rising(families: Any) -> dict[str, float]:
    """Return the samples that may only rise."""
    return samples(
        family for family in families if family.type != "gauge" and not family.name.startswith("gunicorn_master_cpu")
    )


def test_nothing_sinks_while_workers_are_killed_and_born(tmp_path: Path) -> None:
    complaints: list[str] = []
    collector = collector_of(tmp_path, complaints)
    scrapes = 0
    last: dict[str, float] = {}
    with running(_storm, tmp_path, 6.0, 5) as process:
        while process.poll() is None:
            found = rising(collector.collect())
            sunk = {key: (value, found[key]) for key, value in last.items() if key in found and found[key] < value}
            assert not sunk
            # A slot between two owners has no figures of a worker; what is stored never goes.
            gone = {key for key in last.keys() - found.keys() if not key.startswith("gunicorn_worker_")}
            assert not gone
            # prometheus_client's own reader sees the application's metrics, and none of ours.
            assert not client_of(tmp_path).is_dir() or stock_totals(tmp_path) == {}
            last = found
            scrapes += 1
        assert process.stdout is not None
        begun, done, born = json.loads(process.stdout.read().splitlines()[-1])
    assert scrapes > 3
    assert born > BORN_AT_LEAST
    assert complaints == []
    page = page_totals(tmp_path)
    # Each of the killed may have been between the count and its note of it.
    for counted in (sum_of(page, REQUESTS), sum_of(page, "gunicorn_request_duration_seconds_count")):
        assert done <= counted <= begun <= done + born
    assert len(list(slots_of(tmp_path).glob("*.lock"))) <= 5


def _files_come_and_go(path: str, seconds: float) -> int:
    """Live gauges are made, read and removed all the time; so are whole slots."""
    store = ProcessStore()
    store.open(open_directory(path))
    end = time.monotonic() + seconds
    rounds = 0

    def work() -> None:
        add_to(store, "gauge_livesum", GAUGE, 1.0)
        add_to(store, "counter", key_of(1), 1.0)

    while time.monotonic() < end:
        slots = [store.reserve()]
        pids = [fork(work)]
        slots.append(store.reserve())
        pids.append(fork(work))
        for pid, slot in zip(pids, slots, strict=True):
            os.waitpid(pid, 0)
            bury(store, slot)
        rounds += 2
    return rounds


def test_a_scrape_in_the_middle_of_anything_is_a_page(tmp_path: Path) -> None:
    complaints: list[str] = []
    collector = collector_of(tmp_path, complaints)
    last = 0.0
    with running(_files_come_and_go, tmp_path, 3.0) as process:
        while process.poll() is None:
            page = {family.name: family for family in collector.collect()}
            assert {"gunicorn_up", "promgun_store_slots"} <= page.keys()
            if "c" in page:
                assert page["c"].samples[0].value >= last
                last = page["c"].samples[0].value
            for sample in page["g"].samples if "g" in page else ():
                assert sample.value in {0.0, 1.0, 2.0}
        assert process.stdout is not None
        rounds = json.loads(process.stdout.read().splitlines()[-1])
    assert complaints == []
    assert lasting_of(totals(tmp_path)) == {"c_total{n=1}": float(rounds)}


# ---- a real server

#: Objects of workers outlive the processes: a slot must not be free by their being collected alone.
KEEPS_WORKERS = "gone = []\ndef child_exit(server, worker): gone.append(worker)\n"


def test_recycled_workers_of_a_server_leave_nothing() -> None:
    from tests.support.harness import PromgunProcess  # noqa: PLC0415 - for this test alone
    from tests.support.http_client import load  # noqa: PLC0415 - same

    with PromgunProcess("--max-requests", "5", app="probe:app", config=KEEPS_WORKERS, workers=2) as server:
        store = Path(server.sandbox.runs()[0]["store"])
        sent = 0
        files: list[set[str]] = []
        for _ in range(3):
            assert load(server.address, 40, path="/ok", concurrency=4, keepalive=False) == {200: 40}
            sent += 40
            server.expect(REQUESTS, sent)
            wait_until(lambda: server.scrape().value("gunicorn_workers", state="booted") == 2)
            files.append({path.name for path in slots_of(store).iterdir() if "gauge_live" not in path.name})
        assert server.scrape().sum("gunicorn_worker_spawns_total") >= 20
        # A new worker may take its slot before the old one has left it.
        assert len([name for name in files[-1] if name.endswith(".lock")]) <= 5
        assert len(files[-1]) <= len(files[0]) + 4
