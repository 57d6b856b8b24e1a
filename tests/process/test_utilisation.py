"""Utilisation as Prometheus computes it, from busy seconds on two pages, against the clock of the application."""

from __future__ import annotations

import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests.support.harness import UPTIME, Page, PromgunProcess, wait_until
from tests.support.http_client import Address, send

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes do not share a monotonic clock"),
    pytest.mark.unmeasured("it compares figures of time with the clients' own"),
]

BUSY = "gunicorn_worker_busy_seconds_total"
CAPACITY = "gunicorn_worker_capacity"
CLIENTS = 4
#: Each client sends that many between the pages: about seven seconds.
REQUESTS = 8


@dataclass
class KnownLoad:
    """Clients that send requests of known length, with pauses, for as long as a ``with`` block runs.

    ``spans`` are begin and end of every call of the application, by the application's own word.
    """

    address: Address
    spans: list[tuple[float, float]] = field(default_factory=list)
    _stop: Event = field(default_factory=Event)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(CLIENTS))

    def __enter__(self) -> Self:
        self._clients = [self._pool.submit(self._send, random.Random(seed)) for seed in range(CLIENTS)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown()
        for client in self._clients:
            client.result()

    def _send(self, dice: random.Random) -> None:
        while not self._stop.is_set():
            begin, end = map(float, send(self.address, path=f"/timed/{dice.uniform(0.2, 1.2):.3f}").text.split())
            self.spans.append((begin, end))
            self._stop.wait(dice.uniform(0.05, 0.5))

    def busy(self, begin: float, end: float) -> float:
        """Return the request-seconds between two moments."""
        return sum(max(0.0, min(last, end) - max(first, begin)) for first, last in self.spans)


@dataclass
class TimedPages:
    """Pages, and when each was made: after it was asked for, before it came, as far apart as their uptimes say."""

    server: PromgunProcess
    pages: list[Page] = field(default_factory=list)
    _earliest: float = 0.0
    _latest: float = float("inf")

    def take(self) -> Page:
        """Take one more."""
        asked = time.monotonic()
        page = self.server.scrape()
        uptime = page.sum(UPTIME)
        self._earliest = max(self._earliest, asked - uptime)
        self._latest = min(self._latest, time.monotonic() - uptime)
        self.pages.append(page)
        return page

    def moment(self, page: Page) -> float:
        """Return when a page was made, on the monotonic clock."""
        return (self._earliest + self._latest) / 2 + page.sum(UPTIME)


def test_utilisation_is_within_two_percent_of_the_truth(worker_type: str) -> None:
    options = {"sync": ("--workers", "4"), "gthread": ("--workers", "2", "--threads", "4")}
    with PromgunProcess("-k", worker_type, *options.get(worker_type, ()), app="probe:app") as server:
        pages = TimedPages(server)
        with KnownLoad(server.address) as load:
            wait_until(lambda: len(load.spans) >= CLIENTS)
            first = [pages.take() for _ in range(10)][-1]
            served = len(load.spans)
            wait_until(lambda: len(load.spans) >= served + CLIENTS * REQUESTS, deadline=60)
            last = [pages.take() for _ in range(10)][-1]
        begin, end = pages.moment(first), pages.moment(last)
        capacity = last.sum(CAPACITY)
        assert capacity == first.sum(CAPACITY)
        for moment in (begin, end):
            assert any(start < moment < stop for start, stop in load.spans), "no request runs across the page"
        utilisation = (last.sum(BUSY) - first.sum(BUSY)) / (last.sum(UPTIME) - first.sum(UPTIME)) / capacity
        print(
            "RATIO",
            worker_type,
            utilisation,
            utilisation / (load.busy(begin, end) / (end - begin) / capacity),
            pages._latest - pages._earliest,
            end - begin,
        )
        assert utilisation == pytest.approx(load.busy(begin, end) / (end - begin) / capacity, rel=0.02)
        # Nothing but the clients has been served: what is left is all that was ever busy.
        server.expect("gunicorn_worker_requests_in_progress", 0)
        assert server.fresh().sum(BUSY) == pytest.approx(load.busy(0.0, float("inf")), rel=0.02)
