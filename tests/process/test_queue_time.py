"""Waits before a worker took a request."""

from __future__ import annotations

import socket
import sys
from collections.abc import Container, Mapping
from itertools import pairwise
from types import SimpleNamespace

import pytest

from promgun.workers._queue_time import NOTHING_SENT, ArrivalObserver, TrustedPeers, kernel_wait, proxy_wait
from tests.support.sandbox import wait_until

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("stamp", "wait"),
    [
        ("t=1699999998.5", 1.5),
        ("1699999998.5", 1.5),
        (" t=1699999998500 ", 1.5),
        ("1699999998500000", 1.5),
        ("t=1700000000", 0.0),
        ("t=1700000001", None),
        ("1699990000", None),
        ("0", None),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("yesterday", None),
    ],
)
def test_stamps(stamp: str, wait: float | None) -> None:
    for header in ("HTTP_X_REQUEST_START", "HTTP_X_QUEUE_START"):
        found = proxy_wait({header: stamp}, lambda: NOW)
        assert found == (None if wait is None else pytest.approx(wait, abs=1e-3))


def test_no_stamp() -> None:
    assert proxy_wait({}) is None


def test_who_is_believed() -> None:
    def peers(*allowed: str) -> TrustedPeers:
        return TrustedPeers(SimpleNamespace(forwarded_allow_ips=list(allowed)))

    assert ("127.0.0.1", 5) in peers("127.0.0.1", "::1")
    assert ("127.0.0.2", 5) not in peers("127.0.0.1")
    assert ("10.1.2.3", 5) in peers("10.0.0.0/8")
    assert ("::1", 5, 0, 0) in peers("::1")
    assert ("nonsense", 5) not in peers("10.0.0.0/8")
    assert ("192.0.2.1", 5) in peers("*")
    assert "" in peers("127.0.0.1"), "a Unix socket, as Gunicorn has it"
    many = peers("10.0.0.0/8")
    assert all((f"192.0.2.{number % 256}", number) not in many for number in range(3000))


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux'")
def test_the_kernel_tells_how_long_the_first_bytes_lay_there() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as client:
        early, _ = listener.accept()
        with early:
            assert kernel_wait(early) == NOTHING_SENT, "nobody waits for us"
            client.sendall(b"x")
            waited = wait_until(lambda: max(kernel_wait(early) or 0.0, 0.0))
            assert 0 < waited < 10
    left, right = socket.socketpair()
    with left, right:
        assert kernel_wait(left) is None


MILLISECOND = 1_000_000


def arrivals(
    answers: Mapping[int, float | None], every: float, count: int, likely: Container[int] = ()
) -> dict[int, float]:
    """Return what was observed of ``count`` connections accepted ``every`` so many milliseconds, by number from 0.

    The kernel tells ``answers`` of them, 0 of those that are left out.
    """
    waits: list[float] = []
    seen: dict[int, float] = {}
    arrived = ArrivalObserver(waits.append, lambda number: answers.get(number, 0.0))
    for number in range(count):
        if number in likely:
            arrived.ask_at = 0
        arrived(number, int(1e12 + number * every * MILLISECOND))
        if waits:
            seen[number] = waits.pop()
    return seen


def test_while_nobody_waits_one_connection_in_sixty_four_is_asked_about() -> None:
    assert list(arrivals({}, 1.0, 960)) == list(range(0, 960, 64))
    assert list(arrivals({0: NOTHING_SENT, 64: 0.004}, 1.0, 150)) == [0, 64, 128]


def test_of_few_connections_one_a_second_is_asked_about() -> None:
    assert list(arrivals({}, 250.0, 13)) == [0, 4, 8, 12]
    assert list(arrivals({}, 1500.0, 3)) == [0, 1, 2]


def test_while_connections_wait_the_kernel_is_asked_about_each() -> None:
    answers = {64: 0.7, 65: 0.7, 66: 0.005, 67: 0.0}
    assert arrivals(answers, 0.2, 120) == {0: 0.0, 64: 0.7, 65: 0.7, 66: 0.005, 67: 0.0}


def test_one_that_is_likely_to_have_waited_is_asked_about() -> None:
    assert arrivals({5: 0.7}, 1.0, 10, likely=(5, 8)) == {0: 0.0, 5: 0.7, 6: 0.0, 8: 0.0}


@pytest.mark.parametrize(("every", "waits"), [(0.5, 0.7), (0.5, 0.0), (20.0, 0.7), (400.0, 0.0), (3000.0, 0.0)])
@pytest.mark.parametrize("likely", [(), range(100_000)])
def test_of_many_connections_one_in_thirty_two_is_asked_about_at_most(
    every: float, waits: float, likely: Container[int]
) -> None:
    count = 3200
    asked = arrivals(dict.fromkeys(range(count), waits), every, count, likely)
    # What was saved at the beginning is eight questions.
    assert count // 65 <= len(asked) <= count // 32 + 8
    # None is long without an answer.
    numbers = list(asked)
    assert max(after - before for before, after in pairwise(numbers)) <= 64


def test_a_crowd_after_a_calm_time_is_asked_about_one_by_one() -> None:
    crowd = range(2046, 2066)
    asked = arrivals(dict.fromkeys(crowd, 0.5), 0.2, 2066, likely=(2046,))
    assert [asked.get(number) for number in crowd[:9]] == [0.5] * 8 + [None]
    assert sum(number in asked for number in crowd) == 8


def test_what_cannot_be_told_is_not_observed() -> None:
    assert arrivals({0: None, 1: NOTHING_SENT}, 0.1, 3) == {1: 0.0}
