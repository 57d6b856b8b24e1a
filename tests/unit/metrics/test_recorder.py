"""The accounting of one request: exact, bounded, and the same whatever comes in between."""

from __future__ import annotations

import gc
import random
import sys
import threading
import tracemalloc
from bisect import bisect_left
from collections import Counter as Count
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promgun.metrics import counters as counters_module
from promgun.metrics import recorder as recorder_module
from promgun.metrics import stream_recorder as stream_recorder_module
from promgun.metrics.counters import Counters
from promgun.metrics.defaults import DURATION_BUCKETS, SIZE_BUCKETS
from promgun.metrics.fine_durations import FINE_DURATIONS
from promgun.metrics.label_sets import METHODS, OTHER_METHOD, OVERFLOW
from promgun.metrics.recorder import Recorder
from promgun.metrics.statuses import OTHER_STATUS
from promgun.metrics.stream_recorder import StreamRecorder
from promgun.store.board import Board
from promgun.store.format import go_string
from promgun.store.reader import StoreReader, SumBy
from tests.support.store_fixtures import (
    Opened,
    in_fresh_interpreter,
    move_in,
    opened,
    page_totals,
    published,
    release,
    stock_totals,
    sum_of,
)

REQUESTS = "gunicorn_requests_total"
DURATION = "gunicorn_request_duration_seconds"
FIRST_BYTE = "gunicorn_response_start_seconds"
RECEIVED = "gunicorn_request_size_bytes"
SENT = "gunicorn_response_size_bytes"
CPU = "gunicorn_request_cpu_seconds_total"


def make(opened_: Opened, cap: int = 1000, *, cpu: bool = False) -> Recorder:
    counters = Counters(opened_.store, cap)
    return Recorder(opened_.store, counters, DURATION_BUCKETS, SIZE_BUCKETS, cpu=cpu)


def requests_of_slots(path: Path) -> dict[str, float]:
    """Return how many requests each slot has answered."""
    return StoreReader(path, sums=(SumBy("by slot", REQUESTS, ""),)).read_sums()["by slot"]


@pytest.fixture(params=["with the GIL", "free-threaded"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """A store, with and without the lock of a free-threaded build."""
    for module in (recorder_module, stream_recorder_module, counters_module):
        monkeypatch.setattr(module, "has_gil", lambda: request.param == "with the GIL")
    with opened(tmp_path) as found:
        yield found


def test_one_request(place: Opened, tmp_path: Path) -> None:
    recorder = make(place)
    recorder.record("GET", "/users/<int:id>", 200, 0.03, 300, 70_000)
    page = page_totals(tmp_path)
    labels = "method=GET,route=/users/<int:id>,status=200"
    assert page[f"{REQUESTS}{{{labels}}}"] == 1.0
    assert requests_of_slots(tmp_path)["1"] == 1.0
    assert page[f"{DURATION}_count{{{labels}}}"] == 1.0
    assert page[f"{DURATION}_sum{{{labels}}}"] == 0.03
    assert page[f"{RECEIVED}_sum{{method=GET,route=/users/<int:id>}}"] == 300.0
    assert page[f"{SENT}_sum{{method=GET,route=/users/<int:id>}}"] == 70_000.0
    for name, bounds, value in (
        (DURATION, DURATION_BUCKETS, 0.03),
        (RECEIVED, SIZE_BUCKETS, 300),
        (SENT, SIZE_BUCKETS, 70_000),
    ):
        found = {key: held for key, held in page.items() if key.startswith(f"{name}_bucket")}
        assert len(found) == len(bounds) + 1
        for bound in (*bounds, float("inf")):
            (held,) = [held for key, held in found.items() if f"le={go_string(bound)}," in key]
            assert held == (value <= bound)
    assert stock_totals(tmp_path) == {}


@pytest.mark.parametrize("at", range(len(SIZE_BUCKETS)))
def test_a_bound_belongs_to_its_own_bucket(place: Opened, tmp_path: Path, at: int) -> None:
    recorder = make(place)
    recorder.record("GET", "", 200, DURATION_BUCKETS[at], int(SIZE_BUCKETS[at]), int(SIZE_BUCKETS[at]))
    page = page_totals(tmp_path)
    for name, bounds in ((DURATION, DURATION_BUCKETS), (RECEIVED, SIZE_BUCKETS), (SENT, SIZE_BUCKETS)):
        counts = [
            sum(held for key, held in page.items() if key.startswith(f"{name}_bucket{{le={go_string(bound)},"))
            for bound in bounds
        ]
        assert counts == [0.0] * at + [1.0] * (len(bounds) - at)


def test_many_requests_are_counted_exactly(place: Opened, tmp_path: Path) -> None:
    """A stream among them is one more request; only its first byte is earlier than its end."""
    recorder = make(place, cpu=True)
    streams = StreamRecorder(
        place.store, Counters(place.store, 1000), DURATION_BUCKETS, SIZE_BUCKETS, recorder.cpu_cells
    )
    random_ = random.Random(7)
    expected: Count[str] = Count()
    for _ in range(5000):
        method, route = random_.choice(METHODS), random_.choice(["", "/a", "/b"])
        status = random_.choice([200, 204, 301, 404, 500])
        seconds = random_.choice([0.0, 0.25, 0.5, 2.0, 64.0])
        received, sent = random_.choice([0, 256, 257, 1 << 20, 1 << 30]), random_.choice([0, 1024, 1 << 25])
        first = random_.choice([seconds, seconds / 4])
        if first < seconds:
            streams.record_stream(method, route, status, seconds, received, sent, first)
        else:
            recorder.record(method, route, status, seconds, received, sent)
        exchange = f"method={method},route={route}"
        expected[f"{CPU}{{route={route}}}"] += 2
        recorder.count_cpu(route, 2.0)
        expected[f"{REQUESTS}{{{exchange},status={status}}}"] += 1
        for name, labels, bounds, value in (
            (DURATION, f"{exchange},status={status}", DURATION_BUCKETS, seconds),
            (FIRST_BYTE, exchange, DURATION_BUCKETS, first),
            (RECEIVED, exchange, SIZE_BUCKETS, received),
            (SENT, exchange, SIZE_BUCKETS, sent),
        ):
            expected[f"{name}_count{{{labels}}}"] += 1
            expected[f"{name}_sum{{{labels}}}"] += value  # type: ignore[assignment] # a Counter may hold floats
            for bound in (*bounds, float("inf"))[bisect_left(bounds, value) :]:
                expected[f"{name}_bucket{{le={go_string(bound)},{labels}}}"] += 1
    page = {key: value for key, value in page_totals(tmp_path).items() if not key.startswith(FINE_DURATIONS)}
    assert page.items() >= expected.items()
    assert requests_of_slots(tmp_path) == {"1": 5000.0}
    assert set(page) - set(expected) == {key for key in page if "_bucket" in key and page[key] == 0}


def test_threads_lose_nothing(place: Opened, tmp_path: Path) -> None:
    recorder = make(place)
    rounds = 3000
    previous = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def work() -> None:
        for n in range(rounds):
            recorder.record("GET", f"/{n % 50}", 200, 0.5, 1, 2)

    threads = [threading.Thread(target=work) for _ in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(previous)
    page = page_totals(tmp_path)
    assert sum_of(page, REQUESTS) == sum_of(page, f"{DURATION}_count") == sum_of(page, f"{SENT}_count") == 8 * rounds
    assert requests_of_slots(tmp_path)["1"] == 8 * rounds
    assert sum_of(page, f"{DURATION}_sum") == 0.5 * 8 * rounds
    assert (sum_of(page, f"{RECEIVED}_sum"), sum_of(page, f"{SENT}_sum")) == (8 * rounds, 16 * rounds)


# ---- bounded


@pytest.mark.parametrize("method", ["BREW", "get", "", "G" * 10_000, "\ud800"])
def test_methods_that_no_rfc_names_share_a_row(place: Opened, tmp_path: Path, method: str) -> None:
    recorder = make(place)
    for _ in range(3):
        recorder.record(method, "", 200, 0.1, 0, 0)
    assert list(recorder._by_labels) == [(OTHER_METHOD, "", "200")]
    assert not recorder._rows, "what a client made up is not remembered"
    page = page_totals(tmp_path)
    assert page[f"{REQUESTS}{{method={OTHER_METHOD},route=,status=200}}"] == 3.0
    assert sum_of(page, REQUESTS) == 3.0


@pytest.mark.parametrize("status", [None, 0, -1, 7, 99, 1000, 123_456, "200", 2.5])
def test_what_is_no_status_shares_a_row(place: Opened, tmp_path: Path, status: Any) -> None:
    """Gunicorn 27.0 gives ``None`` for a status line such as "abc"."""
    recorder = make(place)
    for _ in range(3):
        recorder.record("GET", "", status, 0.1, 0, 0)
    assert list(recorder._by_labels) == [("GET", "", OTHER_STATUS)]
    assert not recorder._rows
    assert sum_of(page_totals(tmp_path), f"{REQUESTS}{{method=GET,route=,status={OTHER_STATUS}}}") == 3.0


@pytest.mark.parametrize(
    ("status", "label"),
    [(100, "100"), (204, "204"), (418, "418"), (511, "511"), (199, "1xx"), (299, "2xx"), (450, "4xx"), (599, "5xx")],
)
def test_statuses_that_nobody_registered_read_their_class(
    place: Opened, tmp_path: Path, status: int, label: str
) -> None:
    recorder = make(place)
    for _ in range(2):
        recorder.record("GET", "", status, 0.1, 0, 0)
    page = page_totals(tmp_path)
    assert page[f"{REQUESTS}{{method=GET,route=,status={label}}}"] == sum_of(page, REQUESTS) == 2.0


def test_beyond_the_cap_label_sets_are_folded(place: Opened, tmp_path: Path) -> None:
    recorder = make(place, cap=10)
    for n in range(500):
        recorder.record("GET", f"/{n}", 200, 0.5, 1, 1)
        recorder.record("GET", "/0", 200, 0.5, 1, 1)
    page = page_totals(tmp_path)
    requests = {key: value for key, value in page.items() if key.startswith(REQUESTS)}
    assert len(requests) == 11
    assert requests[f"{REQUESTS}{{method=GET,route={OVERFLOW},status=200}}"] == 490.0
    assert requests[f"{REQUESTS}{{method=GET,route=/0,status=200}}"] == 501.0
    assert sum(requests.values()) == sum_of(page, f"{DURATION}_count") == 1000
    assert page[f"promgun_label_sets_folded_total{{family={REQUESTS}}}"] == 490.0
    assert (len(recorder._rows), len(recorder._by_labels)) == (10, 11)


def test_the_sets_of_earlier_owners_count(place: Opened, tmp_path: Path) -> None:
    recorder = make(place, cap=10)
    for n in range(8):
        recorder.record("GET", f"/{n}", 200, 0.5, 1, 1)
    release(place.store)
    with opened(tmp_path) as heir:
        second = make(heir, cap=10)
        for n in range(20):
            second.record("GET", f"/new/{n}", 200, 0.5, 1, 1)
        second.record("GET", "/3", 200, 0.5, 1, 1)
        requests = {key: value for key, value in page_totals(tmp_path).items() if key.startswith(REQUESTS)}
        assert len(requests) == 11
        assert requests[f"{REQUESTS}{{method=GET,route={OVERFLOW},status=200}}"] == 18.0
        assert requests[f"{REQUESTS}{{method=GET,route=/3,status=200}}"] == 2.0


def held_by_promgun() -> int:
    """Return the bytes that promgun's lines, and what they called, hold."""
    # Collecting also empties the lists in which the interpreter keeps what was freed.
    gc.collect()
    ours = tracemalloc.Filter(inclusive=True, filename_pattern="*/promgun/*", all_frames=True)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([ours]).traces)


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
def test_a_row_is_made_once_and_nothing_grows(place: Opened) -> None:
    recorder = make(place, cap=20)
    calls = [
        *[("GET", f"/{n % 20}", 200) for n in range(200)],
        *[("GET", f"/beyond/{n}", 200) for n in range(3)],
        ("MADE-UP", "", 200),
        ("GET", "/0", 12345),
    ]

    def work(rounds: int) -> None:
        for n in range(rounds):
            method, route, status = calls[n % len(calls)]
            recorder.record(method, route, status, 0.01, n % 3, n % 5000)

    work(1000)
    rows = dict(recorder._rows)
    gc.collect()
    blocks = sys.getallocatedblocks()
    work(100_000)
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 500
    tracemalloc.start(3)
    try:
        work(500)
        before = held_by_promgun()
        work(5000)
        grown = held_by_promgun() - before
    finally:
        tracemalloc.stop()
    assert grown < 1024
    assert recorder._rows == rows
    assert all(recorder._rows[identity] is row for identity, row in rows.items())


# ---- CPU time


def cpu_by_route(path: Path) -> dict[str, float]:
    name = f"{CPU}{{route="
    return {key[len(name) : -1]: value for key, value in page_totals(path).items() if key.startswith(name)}


def test_cpu_time_is_counted_by_route(place: Opened, tmp_path: Path) -> None:
    recorder = make(place, cap=4, cpu=True)
    for number, (route, status) in enumerate(
        (("/a", 200), ("/b", 200), ("/a", 500), ("", 404), ("/c", 200), ("/d", 1))
    ):
        recorder.record("GET", route, status, 0.5, 1, 2)
        recorder.count_cpu(route, 2.0**number)
    assert cpu_by_route(tmp_path) == {"/a": 5.0, "/b": 2.0, "": 8.0, OVERFLOW: 48.0}
    assert sum_of(page_totals(tmp_path), REQUESTS) == 6


def test_without_cpu_time_there_is_no_family(place: Opened, tmp_path: Path) -> None:
    recorder = make(place)
    assert not recorder.counts_cpu
    recorder.record("GET", "/a", 200, 0.5, 1, 2)
    recorder.count_cpu("/a", 1.0)
    assert cpu_by_route(tmp_path) == {}
    # The next owner of the slot counts it: the rows of both are added up.
    second = make(place, cpu=True)
    second.record("GET", "/a", 200, 0.5, 1, 2)
    second.count_cpu("/a", 1.0)
    assert cpu_by_route(tmp_path) == {"/a": 1.0}
    assert sum_of(page_totals(tmp_path), REQUESTS) == 2


def test_cpu_time_moves_with_its_row(place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = make(place, cpu=True)
    with monkeypatch.context() as patched:
        patched.setattr("promgun.store.slot_claims.claim_slot", full)
        for status in (200, 404):
            recorder.record("GET", "/a", status, 0.5, 1, 2)
            recorder.count_cpu("/a", 1.0)
    place.retry()
    recorder.count_cpu("/a", 1.0)
    assert cpu_by_route(tmp_path) == {"/a": 3.0}


# ---- no space


def full(*_: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_requests_are_counted_while_there_is_no_space(
    place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = make(place)
    recorder.record("GET", "/old", 200, 0.5, 1, 2)
    with monkeypatch.context() as patched:
        patched.setattr("os.posix_fallocate", full)
        for n in range(40):
            for _ in range(3):
                recorder.record("GET", f"/{n}", 200, 0.5, 1, 2)
            recorder.record("GET", "/old", 200, 0.5, 1, 2)
        place.retry()
        assert sum_of(page_totals(tmp_path), f"{DURATION}_count") < 161
    for _ in range(3):
        place.retry()
        page = page_totals(tmp_path)
        assert sum_of(page, REQUESTS) == sum_of(page, f"{DURATION}_count") == sum_of(page, f"{SENT}_count") == 161
        assert sum_of(page, f"{SENT}_sum") == 322
        assert requests_of_slots(tmp_path)["1"] == 161
    recorder.record("GET", "/0", 200, 0.5, 1, 2)
    assert page_totals(tmp_path)[f"{REQUESTS}{{method=GET,route=/0,status=200}}"] == 4.0


def test_the_slot_may_be_found_later_than_the_row(
    place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = make(place)
    with monkeypatch.context() as patched:
        patched.setattr("promgun.store.slot_claims.claim_slot", full)
        recorder.record("GET", "", 200, 0.5, 1, 2)
        recorder.record("GET", "", 200, 0.5, 1, 2)
    assert page_totals(tmp_path) == {}
    place.retry()
    recorder.record("GET", "", 200, 0.5, 1, 2)
    page = page_totals(tmp_path)
    assert requests_of_slots(tmp_path) == {"1": sum_of(page, REQUESTS)} == {"1": 3.0}


def test_the_cap_holds_also_in_memory(place: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorder = make(place, cap=5)
    recorder.record("GET", "/old", 200, 0.5, 1, 2)
    release(place.store)
    place.store.board = Board()
    place.store._detach()
    with monkeypatch.context() as patched:
        patched.setattr("promgun.store.slot_claims.claim_slot", full)
        for n in range(100):
            recorder.record("GET", f"/{n}", 200, 0.5, 1, 2)
        assert (len(recorder._rows), len(recorder._by_labels)) == (5, 6)
    place.retry()
    recorder.record("GET", "/old", 200, 0.5, 1, 2)
    requests = {key: value for key, value in page_totals(tmp_path).items() if key.startswith(REQUESTS)}
    assert sum(requests.values()) == 102
    assert requests[f"{REQUESTS}{{method=GET,route=/old,status=200}}"] == 2.0


def test_threads_lose_nothing_while_space_comes_and_goes(
    place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = make(place)
    recorder.record("GET", "", 200, 0.5, 1, 1)
    previous = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    rounds = 400

    def work() -> None:
        for n in range(rounds):
            recorder.record("GET", f"/{n // 5}", 200, 0.5, 1, 1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with monkeypatch.context() as patched:
                patched.setattr("os.posix_fallocate", full)
                for thread in threads:
                    thread.join(0.01)
            place.retry()
    finally:
        sys.setswitchinterval(previous)
    for _ in range(2):
        place.retry()
    page = page_totals(tmp_path)
    assert sum_of(page, REQUESTS) == sum_of(page, f"{DURATION}_count") == sum_of(page, f"{SENT}_sum") == 6 * rounds + 1
    assert requests_of_slots(tmp_path)["1"] == 6 * rounds + 1


# ---- interrupted


def _record_in_handlers(path: str) -> list[int]:
    import signal  # noqa: PLC0415 - for this process alone

    store = published(path)
    recorder = Recorder(store, Counters(store, 100_000), DURATION_BUCKETS, SIZE_BUCKETS)
    handled = 0

    def handler(_number: int, _frame: object) -> None:
        nonlocal handled
        handled += 1
        recorder.record("GET", f"/{rounds // 20}", 200, 0.5, 1, 1)
        signal.setitimer(signal.ITIMER_REAL, 0.0001)

    rounds = 0
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0001)
    while handled < 2000:
        rounds += 1
        recorder.record("GET", f"/{rounds // 20}", 200, 0.5, 1, 1)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    move_in(store)
    return [rounds, handled]


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
def test_a_signal_handler_that_records_neither_hangs_nor_loses(tmp_path: Path) -> None:
    rounds, handled = in_fresh_interpreter(_record_in_handlers, tmp_path)
    page = page_totals(tmp_path)
    assert (
        sum_of(page, REQUESTS) == sum_of(page, f"{DURATION}_count") == sum_of(page, f"{SENT}_sum") == rounds + handled
    )
    assert requests_of_slots(tmp_path)["1"] == rounds + handled


def test_a_handler_at_every_step_of_a_new_row(place: Opened, tmp_path: Path) -> None:
    """What a signal handler, or another thread, can come in between while a row is made."""
    recorder = make(place, cap=100_000)
    folder = str(Path(recorder_module.__file__).parent.parent)
    total = steps = 0
    while True:
        seen = 0
        handled = False

        def trace(frame: Any, event: str, _argument: object, step: int = steps) -> Any:
            nonlocal seen, handled
            if not frame.f_code.co_filename.startswith(folder) or frame.f_code.co_name == "record":
                return None
            if event == "line":
                seen += 1
                if seen == step and not handled:
                    handled = True
                    recorder.record("GET", f"/{step}", 200, 0.5, 1, 1)
            return trace

        previous = sys.gettrace()
        sys.settrace(trace)
        try:
            recorder.record("GET", f"/{steps}", 200, 0.5, 1, 1)
        finally:
            sys.settrace(previous)
        total += 1 + handled
        if steps and not handled:
            break
        steps += 1
    for _ in range(2):
        place.retry()
    assert steps > 40
    page = page_totals(tmp_path)
    assert sum_of(page, REQUESTS) == sum_of(page, f"{DURATION}_count") == sum_of(page, f"{SENT}_sum") == total
    assert requests_of_slots(tmp_path)["1"] == total
