"""Collections: how fresh, how many, and what a failing or hanging one costs."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily

from promgun.endpoint.limits import Limits
from tests.support.endpoint_server import PROMPT, Endpoint, families
from tests.support.http_client import Connection, Request, Response, send
from tests.support.sandbox import wait_until

if TYPE_CHECKING:
    import pytest
    from prometheus_client.core import Metric


class Ledger:
    """A collector that shows a number, takes a while, and notes how it was called."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.number = 0
        self.collections = 0
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def add(self) -> int:
        with self._lock:
            self.number += 1
            return self.number

    def collect(self) -> list[Metric]:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        family = CounterMetricFamily("number", "n", self.number)
        self.collections += 1
        time.sleep(self.seconds)
        self._at_once -= 1
        return [family]


def shown(answer: Response) -> float:
    return float(answer.text.rsplit(" ", 1)[1])


def test_what_happened_before_a_scrape_is_on_its_page() -> None:
    ledger = Ledger(0.02)

    with Endpoint(ledger.collect) as endpoint, ThreadPoolExecutor(16) as pool:

        def add_and_scrape(_: int) -> bool:
            return ledger.add() <= shown(send(endpoint.address, path="/metrics"))

        assert all(pool.map(add_and_scrape, range(200)))
    assert ledger.most_at_once == 1


def test_scrapes_at_once_share_a_collection() -> None:
    ledger, asked = Ledger(0), threading.Event()

    def collect() -> list[Metric]:
        collected = ledger.collect()
        assert asked.wait(60)
        return collected

    with Endpoint(collect, limits=Limits(collect_seconds=60)) as server, ExitStack() as stack:
        clients = [stack.enter_context(Connection(server.address)) for _ in range(40)]
        for client in clients:
            client.socket.sendall(Request("/metrics").encode("1.1", keepalive=False))
        # Answered after what came before it was read: the first scrape is collected for, and the others wait.
        for _ in range(3):
            assert send(server.address, path="/-/healthy").status == 200
        asked.set()
        assert {client.read_response().status for client in clients} == {200}
    assert ledger.collections <= 3


def test_collections_take_no_more_than_half_the_time() -> None:
    ledger = Ledger(0.05)
    with Endpoint(ledger.collect) as server, Connection(server.address) as connection:
        began = time.monotonic()
        while time.monotonic() < began + 1:
            connection.request(Request("/metrics"), keepalive=True)
        elapsed = time.monotonic() - began
    assert 2 <= ledger.collections <= elapsed / (2 * ledger.seconds) + 1


def test_failed_collection_is_a_503_that_tells_nothing_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = [RuntimeError("the secret"), RuntimeError("the secret"), KeyError("other")]

    def collect() -> list[Metric]:
        if faults:
            raise faults.pop(0)
        return families()

    with caplog.at_level(logging.WARNING), Endpoint(collect) as server:
        failed = [send(server.address, path="/metrics") for _ in range(3)]
        assert send(server.address, path="/metrics").status == 200
    assert [(answer.status, answer.headers["retry-after"]) for answer in failed] == [(503, "1")] * 3
    assert {answer.text for answer in failed} == {"promgun: the metrics cannot be collected now.\n"}
    assert server.endpoint.faults.seen == {"RuntimeError: the secret": 2, "KeyError: 'other'": 1}
    assert len(caplog.records) == 2


def test_family_that_one_format_cannot_write_spoils_only_that_format() -> None:
    def collect() -> list[Metric]:
        family = CounterMetricFamily("number", "n")
        # A gauge-like sample may not carry an exemplar in OpenMetrics; the text format leaves exemplars out.
        family.add_sample("number_created", {}, 1, exemplar={"trace": "1"})  # type: ignore[arg-type]
        return [family]

    with Endpoint(collect) as server:
        accept = [("Accept", "application/openmetrics-text")]
        assert send(server.address, path="/metrics", headers=accept).status == 503
        assert send(server.address, path="/metrics").status == 200


def test_collection_that_hangs_costs_a_503_and_later_ones_none_of_their_time() -> None:
    hangs = threading.Event()
    hangs.set()
    released = threading.Event()

    def collect() -> list[Metric]:
        if hangs.is_set():
            released.wait(60)
        return families()

    with Endpoint(collect, limits=Limits(collect_seconds=0.6)) as server:
        assert send(server.address, path="/metrics").status == 503
        began = time.monotonic()
        again = [send(server.address, path="/metrics").status for _ in range(20)]
        assert (set(again), time.monotonic() - began < PROMPT) == ({503}, True)
        assert send(server.address, path="/-/healthy").status == 200
        hangs.clear()
        released.set()
        wait_until(lambda: send(server.address, path="/metrics").status == 200)
