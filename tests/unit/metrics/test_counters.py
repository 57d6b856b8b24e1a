"""Counters of our own families, the keys they have, and the cap on their label sets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from promgun.metrics import counters as module
from promgun.metrics import histograms as histograms_module
from promgun.metrics.catalog import CATALOG
from promgun.metrics.counters import Counters
from promgun.metrics.families.master import LOG_MESSAGES, WORKER_BOOT_SECONDS, WORKER_SPAWNS
from promgun.metrics.families.promgun import LABEL_SETS_FOLDED
from promgun.metrics.families.requests import FAILED_REQUESTS, INVALID_REQUESTS
from promgun.metrics.histograms import Histograms
from promgun.metrics.label_sets import FREE_LABELS, OVERFLOW
from promgun.metrics.label_values import LogLevel
from promgun.metrics.recorder import Recorder
from promgun.metrics.spec import CounterFamily
from promgun.metrics.stream_recorder import StreamRecorder
from promgun.store.board import Board
from promgun.store.slot_claims import SlotClaims
from tests.support.store_fixtures import (
    Opened,
    opened,
    page_totals,
    release,
    slots_of,
    stock_totals,
    sum_of,
)

FAILED = FAILED_REQUESTS.name
LOGGED = LOG_MESSAGES.name
BOOT = WORKER_BOOT_SECONDS.name
FOLDED = LABEL_SETS_FOLDED.name


@pytest.fixture(params=["with the GIL", "free-threaded"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """A store, with and without the lock of a free-threaded build."""
    for found in (module, histograms_module):
        monkeypatch.setattr(found, "has_gil", lambda: request.param == "with the GIL")
    with opened(tmp_path) as store:
        yield store


def full(*_: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_a_counter_counts(place: Opened, tmp_path: Path) -> None:
    counters = Counters(place.store, 1000)
    counters.inc(LOG_MESSAGES, (LogLevel.INFO,))
    counters.inc(LOG_MESSAGES, (LogLevel.INFO,), 2.5)
    counters.inc(WORKER_SPAWNS, ())
    counters.inc(FAILED_REQUESTS, ("GET", "/a", "ValueError"))
    assert page_totals(tmp_path) == {
        f"{LOGGED}{{level=info}}": 3.5,
        "gunicorn_worker_spawns_total{}": 1.0,
        f"{FAILED}{{error_type=ValueError,method=GET,route=/a}}": 1.0,
    }
    assert stock_totals(tmp_path) == {}, "stock readers see the application's metrics alone"


def test_the_next_owner_counts_on(place: Opened, tmp_path: Path) -> None:
    Counters(place.store, 1000).inc(LOG_MESSAGES, (LogLevel.INFO,))
    release(place.store)
    with opened(tmp_path) as heir:
        Counters(heir.store, 1000).inc(LOG_MESSAGES, (LogLevel.INFO,), 2)
        assert page_totals(tmp_path) == {f"{LOGGED}{{level=info}}": 3.0}


def test_after_a_fork_places_are_asked_for_anew(place: Opened, tmp_path: Path) -> None:
    counters = Counters(place.store, 1000)
    counters.inc(LOG_MESSAGES, (LogLevel.INFO,))
    parent = place.store._claims
    place.store._home, place.store._claims = None, SlotClaims()
    place.store.board = Board()
    place.store._detach()
    counters.inc(LOG_MESSAGES, (LogLevel.INFO,))
    assert page_totals(tmp_path) == {f"{LOGGED}{{level=info}}": 2.0}
    assert sorted(path.name for path in slots_of(tmp_path).iterdir()) == [
        "1",
        "1.lock",
        "2",
        "2.lock",
        "folding-begun",
    ]
    assert parent._own is not None
    parent._own.release()


@pytest.mark.parametrize(
    "spec",
    [spec for spec in CATALOG if isinstance(spec, CounterFamily) and FREE_LABELS & {*spec.labels}],
    ids=lambda spec: spec.name,
)
def test_every_family_with_free_labels_is_capped(
    place: Opened, tmp_path: Path, spec: CounterFamily[tuple[str, ...]]
) -> None:
    name = spec.name
    counters = Counters(place.store, 5)
    for n in range(50):
        counters.inc(spec, tuple(f"{label}{n}" if label in FREE_LABELS else "x" for label in spec.labels))
    page = page_totals(tmp_path)
    held = {key: value for key, value in page.items() if key.startswith(f"{name}{{")}
    assert len(held) == 6
    assert sum(held.values()) == 50
    (folded,) = [value for key, value in held.items() if OVERFLOW in key]
    assert folded == page[f"{FOLDED}{{family={name}}}"] == 45
    assert sum(OVERFLOW in key for key in held) == 1


def test_closed_labels_are_never_folded(place: Opened, tmp_path: Path) -> None:
    counters = Counters(place.store, 2)
    for level in LogLevel:
        counters.inc(LOG_MESSAGES, (level,))
    assert len(page_totals(tmp_path)) == 5


def test_each_family_has_a_cap_of_its_own(place: Opened, tmp_path: Path) -> None:
    counters = Counters(place.store, 3)
    for n in range(3):
        counters.inc(FAILED_REQUESTS, ("GET", f"/{n}", "E"))
        counters.inc(INVALID_REQUESTS, (f"E{n}",))
    assert not any(OVERFLOW in key for key in page_totals(tmp_path))


def test_what_earlier_owners_made_counts_towards_the_cap(place: Opened, tmp_path: Path) -> None:
    first = Counters(place.store, 5)
    for n in range(5):
        first.inc(FAILED_REQUESTS, ("GET", f"/{n}", "E"))
    release(place.store)
    with opened(tmp_path) as heir:
        second = Counters(heir.store, 5)
        second.inc(FAILED_REQUESTS, ("GET", "/new", "E"))
        second.inc(FAILED_REQUESTS, ("GET", "/3", "E"))
        page = page_totals(tmp_path)
    assert page[f"{FAILED}{{error_type={OVERFLOW},method=GET,route={OVERFLOW}}}"] == 1.0
    assert page[f"{FAILED}{{error_type=E,method=GET,route=/3}}"] == 2.0
    assert len([key for key in page if key.startswith(FAILED)]) == 6


@pytest.mark.parametrize("bounds", [(0.5, 1.0), (0.5, 2.0)])
def test_streams_and_rows_of_other_buckets_count_towards_the_cap(
    place: Opened, tmp_path: Path, bounds: tuple[float, ...]
) -> None:
    first = Counters(place.store, 4)
    for n in range(2):
        Recorder(place.store, first, (0.5, 1.0), (10.0,)).record("GET", f"/{n}", 200, 0.1, 0, 0)
        StreamRecorder(place.store, first, (0.5, 1.0), (10.0,)).record_stream("GET", f"/s{n}", 200, 0.1, 0, 0, 0.1)
    release(place.store)
    for heirs_first in (StreamRecorder, Recorder):
        with opened(tmp_path) as heir:
            second = Counters(heir.store, 4)
            heirs_first(heir.store, second, bounds, (10.0,)).record("GET", "/new", 200, 0.1, 0, 0)
            release(heir.store)
    page = page_totals(tmp_path)
    counted = {key: value for key, value in page.items() if key.startswith("gunicorn_requests_total")}
    routes = "/0", "/1", "/s0", "/s1", OVERFLOW
    assert sorted(counted) == [f"gunicorn_requests_total{{method=GET,route={route},status=200}}" for route in routes]
    assert counted[f"gunicorn_requests_total{{method=GET,route={OVERFLOW},status=200}}"] == 2.0


def test_what_earlier_owners_made_counts_also_when_the_file_comes_late(
    place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Counters(place.store, 5)
    for n in range(5):
        first.inc(FAILED_REQUESTS, ("GET", f"/{n}", "E"))
    release(place.store)
    with opened(tmp_path) as heir:
        second = Counters(heir.store, 5)
        with monkeypatch.context() as patched:
            patched.setattr("promgun.store.slot_claims.claim_slot", full)
            second.inc(FAILED_REQUESTS, ("GET", "/in-memory", "E"))
        second.inc(FAILED_REQUESTS, ("GET", "/new", "E"))
        heir.retry()
        page = page_totals(tmp_path)
    assert page[f"{FAILED}{{error_type={OVERFLOW},method=GET,route={OVERFLOW}}}"] == 1.0
    assert sum_of(page, FAILED) == 7.0


def test_what_finds_no_space_waits(place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters(place.store, 1000)
    histograms = Histograms(place.store, counters, (0.1, 1.0))
    with monkeypatch.context() as patched:
        patched.setattr("os.posix_fallocate", full)
        for _ in range(3):
            counters.inc(LOG_MESSAGES, (LogLevel.INFO,))
            histograms.observe(WORKER_BOOT_SECONDS, (), 0.5)
            place.retry()
    for _ in range(3):
        place.retry()
        assert page_totals(tmp_path) == {
            f"{LOGGED}{{level=info}}": 3.0,
            f"{BOOT}_bucket{{le=0.1}}": 0.0,
            f"{BOOT}_bucket{{le=1.0}}": 3.0,
            f"{BOOT}_bucket{{le=+Inf}}": 3.0,
            f"{BOOT}_count{{}}": 3.0,
            f"{BOOT}_sum{{}}": 1.5,
        }
    counters.inc(LOG_MESSAGES, (LogLevel.INFO,))
    assert page_totals(tmp_path)[f"{LOGGED}{{level=info}}"] == 4.0


def test_new_label_sets_do_not_read_the_file_again(place: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters(place.store, 100)
    read = []
    real = place.store.row_values
    monkeypatch.setattr(place.store, "row_values", lambda schema: read.append(schema.labels) or real(schema))  # type: ignore[func-returns-value] # to count
    for n in range(50):
        counters.inc(FAILED_REQUESTS, ("GET", f"/{n}", "E"))
    assert read == [FAILED_REQUESTS.labels]


def test_a_retry_in_the_middle_of_a_new_series_loses_nothing(
    place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Space returns just when a thread has got private memory for a series and has not noted it yet."""
    counters = Counters(place.store, 1000)
    histograms = Histograms(place.store, counters, (0.1, 1.0))
    recorder = Recorder(place.store, counters, (0.1, 1.0), (10.0,))
    real = place.store.allocate_row
    retries = []

    def allocate_while_space_returns(*arguments: Any) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(place.store, "find_home", full)
            found = real(*arguments)
        retries.append(threading.Thread(target=place.retry))
        retries[-1].start()
        retries[-1].join(0.1)
        return found

    monkeypatch.setattr(place.store, "allocate_row", allocate_while_space_returns)
    steps: list[Callable[[], None]] = [
        lambda: counters.inc(LOG_MESSAGES, (LogLevel.INFO,)),
        lambda: histograms.observe(WORKER_BOOT_SECONDS, (), 0.5),
        lambda: recorder.record("GET", "", 200, 0.5, 1, 1),
    ]
    for step in steps:
        step()
        for retry in retries:
            retry.join()
        for _ in range(2):
            place.retry()
        step()
    page = page_totals(tmp_path)
    assert page[f"{LOGGED}{{level=info}}"] == page[f"{BOOT}_count{{}}"] == 2.0
    assert sum_of(page, "gunicorn_requests_total") == sum_of(page, "gunicorn_response_size_bytes_count") == 2.0
    assert len(retries) >= 3


def test_threads_lose_nothing(place: Opened, tmp_path: Path) -> None:
    counters = Counters(place.store, 100)
    histograms = Histograms(place.store, counters, (0.1, 1.0))

    def work() -> None:
        for n in range(3000):
            counters.inc(LOG_MESSAGES, (LogLevel.INFO,))
            counters.inc(FAILED_REQUESTS, ("GET", f"/{n % 150}", "E"))
            histograms.observe(WORKER_BOOT_SECONDS, (), 0.5)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    page = page_totals(tmp_path)
    assert page[f"{LOGGED}{{level=info}}"] == sum_of(page, FAILED) == page[f"{BOOT}_count{{}}"] == 24_000
    assert page[f"{BOOT}_sum{{}}"] == 12_000
    assert len([key for key in page if key.startswith(FAILED)]) == 101
