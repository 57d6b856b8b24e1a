"""Several workers that each fold: one cap for the instance, everything folded counted, and nothing shown moves."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from promgun.collect import reading
from promgun.collect.page import Collector
from promgun.metrics.counters import Counters
from promgun.metrics.families.promgun import LABEL_SETS_FOLDED
from promgun.metrics.families.requests import FAILED_REQUESTS, REQUESTS
from promgun.metrics.families.websockets import WEBSOCKET_DURATION_SECONDS
from promgun.metrics.histograms import Histograms
from promgun.metrics.label_sets import OVERFLOW
from promgun.metrics.recorder import Recorder
from promgun.store.board import Role
from promgun.store.process import ProcessStore
from tests.support.store_fixtures import opened, samples, slots_of

CAP = 10
MOST_BEYOND = 96
DURATIONS = WEBSOCKET_DURATION_SECONDS.name
Page = dict[str, float]


class Worker:
    """Counts as a worker does."""

    def __init__(self, store: ProcessStore, cap: int = CAP, bounds: tuple[float, ...] = (0.1, 1.0)) -> None:
        self.counters = Counters(store, cap)
        self.recorder = Recorder(store, self.counters, bounds, (10.0,))
        self.histograms = Histograms(store, self.counters, bounds)

    def serve(self, route: str, status: int = 200, method: str = "GET") -> None:
        """Count a request of each kind."""
        self.recorder.record(method, route, status, 0.5, 1, 1)
        self.counters.inc(FAILED_REQUESTS, (method, route, "E"))
        self.histograms.observe(WEBSOCKET_DURATION_SECONDS, (route,), 5.0)


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ProcessStore]]:
    """The stores of four workers of one instance."""
    monkeypatch.setattr(reading, "MAX_LABEL_SETS", CAP)
    with ExitStack() as stack:
        yield [stack.enter_context(opened(tmp_path, Role.WORKER)).store for _ in range(4)]


def page_of(collector: Collector) -> Page:
    return samples(collector.collect())


def of(page: Page, name: str) -> Page:
    return {key: value for key, value in page.items() if key.startswith(f"{name}{{")}


def check(page: Page, before: Page, served: int) -> None:
    """Assert that a page is exact, within the cap, counts all that it folds, and goes on from the page before."""
    folded = LABEL_SETS_FOLDED.name
    for name, family in ((REQUESTS.name,) * 2, (FAILED_REQUESTS.name,) * 2, (f"{DURATIONS}_count", DURATIONS)):
        shown = of(page, name)
        assert sum(shown.values()) == served
        assert len(shown) <= CAP + MOST_BEYOND
        assert sum(OVERFLOW not in key for key in shown) <= CAP
        assert page.get(f"{folded}{{family={family}}}", 0.0) == sum(v for key, v in shown.items() if OVERFLOW in key)
    counters = {key: value for key, value in before.items() if "_total{" in key or "_count{" in key}
    sunk = {key: (value, page.get(key)) for key, value in counters.items() if page.get(key, -1.0) < value}
    assert not sunk


@pytest.mark.parametrize("seed", range(3))
def test_everything_folded_is_counted_and_nothing_shown_moves(
    stores: list[ProcessStore], tmp_path: Path, seed: int
) -> None:
    randomly = random.Random(seed)
    workers = [Worker(store) for store in stores]
    collector, before = Collector(tmp_path), Page()
    for served in range(1, 301):
        route = f"/{randomly.randrange(60)}"
        randomly.choice(workers).serve(route, randomly.choice((200, 404, 500)), randomly.choice(("GET", "PUT")))
        if served % 20 == 0:
            page = page_of(collector)
            check(page, before, served)
            before = page
    check(page_of(Collector(tmp_path)), before, 300)


def test_a_set_born_while_the_page_is_read_moves_nothing(
    stores: list[ProcessStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first slot was read already when a set was born in it, a younger one in the last slot was still found."""
    first, *_, last = (Worker(store) for store in stores)
    for number in range(CAP - 1):
        first.serve(f"/{number}")
        last.serve(f"/{number}")
    collector, real = Collector(tmp_path), os.pread
    page_of(collector)
    inode = (slots_of(tmp_path) / "2").stat().st_ino
    served = 2 * (CAP - 1)

    def serve_meanwhile(fd: int, *arguments: Any) -> bytes:
        nonlocal served
        if served == 2 * (CAP - 1) and os.fstat(fd).st_ino == inode and of_rows(arguments):
            served += 2
            first.serve("/early")
            last.serve("/late")
        return real(fd, *arguments)

    def of_rows(arguments: tuple[int, ...]) -> bool:
        return arguments[-1] > 0

    monkeypatch.setattr(os, "pread", serve_meanwhile)
    before = page_of(collector)
    assert any("/late" in key for key in before)
    check(page_of(collector), before, served)


def test_other_buckets_after_a_reload_have_no_cap_of_their_own(stores: list[ProcessStore], tmp_path: Path) -> None:
    collector = Collector(tmp_path)
    old = Worker(stores[0])
    for number in range(8):
        old.serve(f"/old/{number}")
    before = page_of(collector)
    new = Worker(stores[1], bounds=(0.2, 2.0, 20.0))
    for number in range(8):
        new.serve(f"/new/{number}")
    page = page_of(collector)
    shown = of(page, REQUESTS.name)
    assert sum(OVERFLOW not in key for key in shown) == CAP
    assert page[f"{LABEL_SETS_FOLDED.name}{{family={REQUESTS.name}}}"] == 6
    check(page, before, 16)


def test_a_route_of_websockets_beyond_the_cap_is_folded_in_the_worker(
    stores: list[ProcessStore], tmp_path: Path
) -> None:
    worker = Worker(stores[0])
    for number in range(50):
        worker.histograms.observe(WEBSOCKET_DURATION_SECONDS, (f"/{number}",), 5.0)
    assert len(worker.histograms._rows) == CAP + 1
    page = page_of(Collector(tmp_path))
    assert page[f"{DURATIONS}_count{{route={OVERFLOW}}}"] == 40
    assert page[f"{LABEL_SETS_FOLDED.name}{{family={DURATIONS}}}"] == 40
