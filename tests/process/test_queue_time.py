"""Waits before a worker took a request."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace

import pytest

from promgun.workers._queue_time import NOTHING_SENT, TrustedPeers, arrival_observer, kernel_wait, proxy_wait
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


def arrivals(answers: list[float | None], listeners: int, *times: float) -> tuple[list[float], int]:
    """Return what was observed of connections accepted at ``times`` (milliseconds), and how often the kernel was
    asked.
    """
    seen: list[float] = []
    asked: list[object] = []

    def ask(client: object) -> float | None:
        asked.append(client)
        return answers.pop(0)

    observe = arrival_observer(seen.append, listeners, ask)
    for at in times:
        observe(object(), int(at * MILLISECOND))
    return seen, len(asked)


def test_who_comes_right_behind_one_that_had_hardly_waited_is_not_asked_about() -> None:
    assert arrivals([0.0, 0.004], 1, 10, 10.2, 10.9, 11.1, 11.2) == ([0.0, 0.0, 0.0, 0.004, 0.004], 2)


def test_while_connections_wait_the_kernel_is_asked_about_each() -> None:
    assert arrivals([0.7, 0.7, 0.005, 0.0], 1, 10, 10.2, 10.4, 10.6, 10.8) == ([0.7, 0.7, 0.005, 0.0, 0.0], 4)


def test_a_client_that_has_sent_nothing_says_nothing_about_those_behind_it() -> None:
    assert arrivals([NOTHING_SENT, 0.5], 1, 10, 10.1) == ([0.0, 0.5], 2)


def test_another_listener_s_queue_says_nothing() -> None:
    assert arrivals([0.0, 0.5], 2, 10, 10.1) == ([0.0, 0.5], 2)


def test_what_cannot_be_told_is_not_observed() -> None:
    assert arrivals([None, 0.0], 1, 10, 10.1) == ([0.0], 2)
