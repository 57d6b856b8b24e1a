"""The CPU time of requests: exact while there are few, and without a bias when one in several is measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from random import Random
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from promgun.metrics.instruments import Instruments
from promgun.store.process import ProcessStore
from promgun.workers._queue_time import TrustedPeers
from promgun.workers._request_cpu import CpuAccounting
from promgun.workers._response_close import answered_and_closed

SECOND = 1_000_000_000
MICROSECOND = 1_000
#: Nanoseconds of CPU that a request of each route takes.
COSTS = {"/cheap": 20 * MICROSECOND, "/dear": 900 * MICROSECOND}


class Worker:
    """A worker's accounting with clocks that a test moves, and what it counted by route."""

    def __init__(self, seed: int = 1) -> None:
        self.now = SECOND
        self.thread_now = 5 * SECOND
        self.reads = 0
        store = ProcessStore()
        self.accounting = CpuAccounting(
            store.board,
            Instruments(store, Config(), cpu=True),
            TrustedPeers(Config()),
            clock=lambda: self.now,
            thread_clock=self._read,
            random=Random(seed),
        )
        self.counted = dict.fromkeys(COSTS, 0.0)
        self.accounting.count_cpu = self._count

    def _read(self) -> int:
        self.reads += 1
        return self.thread_now

    def _count(self, route: str, seconds: float) -> None:
        self.counted[route] += seconds

    def serve(self, routes: Sequence[str], seconds: float) -> None:
        """Serve requests in turn, spread evenly over ``seconds``; then a worker looks at its figures."""
        accounting = self.accounting
        for route in routes:
            req = SimpleNamespace(method="GET")
            state = accounting.begin(req)
            state.route = route
            self.thread_now += COSTS[route]
            self.now += int(seconds * SECOND / len(routes))
            accounting.answered(req, state, 200, 0)
            accounting.closed(state)
        self.now += 1
        accounting.look_at_rate()


def alternating(requests: int) -> list[str]:
    return list(islice(cycle(COSTS), requests))


def spent(routes: Sequence[str]) -> dict[str, float]:
    return {route: routes.count(route) * cost / SECOND for route, cost in COSTS.items()}


def test_up_to_a_hundred_requests_a_second_are_measured_each() -> None:
    worker, routes = Worker(), alternating(100)
    for _ in range(3):
        worker.serve(routes, 1.0)
    # A request of three seconds, after which the worker looks again: the rate counts, not the number.
    worker.serve(alternating(300), 3.0)
    worker.serve(routes, 1.0)
    assert worker.reads == 2 * 700
    assert worker.counted == pytest.approx(spent(alternating(700)))


def test_beyond_that_a_random_one_in_k_stands_for_k() -> None:
    worker, routes = Worker(), alternating(1_000)
    worker.serve(routes, 1.0)
    assert worker.reads == 2 * 1_000
    assert worker.accounting.every == 10
    worker.counted = dict.fromkeys(COSTS, 0.0)
    worker.reads = 0
    for _ in range(20):
        worker.serve(routes, 1.0)
    assert worker.reads == pytest.approx(2 * 2_000, rel=0.05)
    assert worker.counted == pytest.approx(spent(alternating(20_000)), rel=0.05)


def test_rates_that_change_every_second_make_no_bias() -> None:
    worker, counted = Worker(), []
    bursts = [alternating(number) for number in (2_000, 40, 700, 4_000, 10)] * 10
    for routes in bursts:
        worker.serve(routes, 1.0)
        counted += routes
    assert worker.counted == pytest.approx(spent(counted), rel=0.05)


def test_a_worker_that_becomes_idle_measures_each_request_again() -> None:
    worker = Worker()
    worker.serve(alternating(5_000), 1.0)
    worker.now += SECOND
    worker.accounting.look_at_rate()
    assert worker.accounting.every == 1
    worker.reads = 0
    worker.serve(alternating(50), 1.0)
    assert worker.reads == 2 * 50


def test_a_busy_worker_notices_the_next_second_by_itself() -> None:
    worker = Worker()
    worker.serve(alternating(3_000), 3.0)
    # One second of each request, then two seconds of one in ten.
    assert worker.reads == pytest.approx(2 * 1_200, rel=0.1)


def test_an_answer_by_another_thread_is_not_counted() -> None:
    worker = Worker()
    req = SimpleNamespace(method="GET")
    state = worker.accounting.begin(req)
    worker.thread_now -= SECOND
    worker.accounting.answered(req, state, 200, 0)
    assert sum(worker.counted.values()) == 0


class Answer:
    """What is used of a response of Gunicorn's; it answers a request of ``route`` with three bytes."""

    status_code, sent, headers_sent, chunked = 200, 3, True, False

    def __init__(self, worker: Worker, route: str) -> None:
        self.req = SimpleNamespace(method="GET")
        worker.accounting.begin(self.req).route = route
        worker.thread_now += COSTS[route]

    def close(self) -> None:
        """Send nothing."""


@pytest.mark.parametrize("is_named_late", [False, True])
def test_a_response_that_is_closed_counts_its_cpu_time(*, is_named_late: bool) -> None:
    worker = Worker()
    accounting, close = worker.accounting, vars(Answer)["close"]
    slowly: list[Answer] = []

    def count(response: Answer) -> None:
        slowly.append(response)
        accounting.answered(response.req, response.req.promgun, 200, 3)

    closed = answered_and_closed(accounting, close, count)
    for number in range(3):
        answer = Answer(worker, "/cheap")
        state = answer.req.promgun
        state.has_more = True
        if is_named_late:
            state.route, state.carrier = "", {"promgun.route": "/cheap"}
        closed(answer)
        closed(answer)
        assert len(slowly) == 1, "the first of a route only, which makes its row"
        assert worker.counted["/cheap"] == pytest.approx((number + 1) * COSTS["/cheap"] / SECOND)
    rows = accounting.rows
    assert rows.keys() == {("GET", "/cheap", 200)}
    cells, small, *_ = rows["GET", "/cheap", 200]
    assert cells[small] == 3
