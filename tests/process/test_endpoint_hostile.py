"""The metrics endpoint against clients that are broken, greedy or malicious."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from promgun.endpoint.limits import Limits
from promgun.status.source import with_names
from tests.support.endpoint_server import PATIENT, PROMPT, Endpoint, converse, families, huge_families, read_all
from tests.support.http_client import Connection, Request, send
from tests.support.sandbox import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client.core import Metric

    from tests.support.http_client import Address

LINE = b"GET /metrics HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
MARK = b"Zq7Reflected"


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    """Run one endpoint for all tests that need no limits of their own."""
    with Endpoint() as endpoint:
        yield endpoint


MALFORMED = {
    "garbage": (MARK + b"\r\n\r\n", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "nul": (b"GET /\0" + MARK + b" HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "nul in a header": (LINE + HOST + b"X: \0" + MARK + b"\r\n\r\n", 400),
    "leading blank line": (b"\r\n" + LINE + HOST + b"\r\n", 400),
    "http 0.9": (b"GET /metrics\r\n\r\n", 400),
    "http 2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "http 3": (b"GET / HTTP/3.0\r\n" + HOST + b"\r\n", 505),
    "no host": (LINE + b"\r\n", 400),
    "two hosts": (LINE + HOST + HOST + b"\r\n", 400),
    "header without colon": (LINE + HOST + MARK + b"\r\n\r\n", 400),
    "space before colon": (LINE + HOST + MARK + b" : x\r\n\r\n", 400),
    "long request line": (b"GET /" + MARK * 6000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "endless request line": (b"G" * 70_000, 414),
    "long header": (LINE + HOST + b"X: " + MARK * 6000 + b"\r\n\r\n", 431),
    "just too long": (LINE + HOST + b"X: " + b"x" * 8200 + b"\r\n\r\n", 431),
    "many headers": (LINE + HOST + (MARK + b": x\r\n") * 1000 + b"\r\n", 431),
    "both framings": (LINE + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (LINE + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    "negative length": (LINE + HOST + b"Content-Length: -1\r\n\r\n", 400),
    "unknown transfer coding": (LINE + HOST + b"Transfer-Encoding: " + MARK + b"\r\n\r\n", 501),
    "body": (LINE + HOST + b"Content-Length: 5\r\n\r\n" + MARK, 413),
    "endless body": (LINE + HOST + b"Content-Length: 99999999999\r\n\r\n" + MARK * 6000, 413),
    "chunked body": (LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n", 413),
    "expectation": (LINE + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", 417),
    "post with body": (b"POST /metrics HTTP/1.1\r\n" + HOST + b"Content-Length: 70000\r\n\r\n" + MARK * 6000, 405),
    "trace": (b"TRACE /" + MARK + b" HTTP/1.1\r\n" + HOST + b"X: " + MARK + b"\r\nConnection: close\r\n\r\n", 405),
    "connect": (b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\nConnection: close\r\n\r\n", 405),
    "path": (b"GET /../" + MARK + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", 404),
    "other scheme": (b"GET ftp://localhost/metrics HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", 404),
    "query": (b"GET /metrics?name[]=" + MARK + b" HTTP/1.0\r\n\r\n", 200),
    "many names": (b"GET /metrics?" + b"name[]=a&" * 100 + MARK + b" HTTP/1.0\r\n\r\n", 400),
    "accept": (b"GET /metrics HTTP/1.0\r\nAccept: text/plain;version=" + MARK + b"\r\n\r\n", 200),
    "upgrade": (LINE + HOST + b"Upgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n", 200),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_get_one_answer_and_the_end(server: Endpoint, name: str) -> None:
    sent, status = MALFORMED[name]
    # All of the answer must come, however much of the request was left unread: no reset.
    answer = converse(server.address, sent)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in head
    assert answer.count(b"HTTP/1.1 ") == 1
    assert MARK.lower() not in answer.lower()
    assert f"Content-Length: {len(body)}".encode() in head
    assert server.endpoint.faults.seen == {}


def test_what_follows_a_refused_request_is_not_taken_for_another(server: Endpoint) -> None:
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sent = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 36\r\n\r\n" + smuggled
    assert converse(server.address, sent).count(b"HTTP/1.1 ") == 1


def test_head_one_byte_at_a_time_is_still_a_request(server: Endpoint) -> None:
    request = Request("/metrics").encode("1.1", keepalive=False)
    answer = converse(server.address, *(bytes([byte]) for byte in request))
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_endless_junk_is_cut_off(server: Endpoint) -> None:
    with Connection(server.address) as connection, pytest.raises(ConnectionError):
        connection.socket.sendall(b"x" * 100_000_000)


QUICK = Limits(head_seconds=0.3, idle_seconds=0.3, write_seconds=0.5, linger_seconds=0.3)


def test_deadlines() -> None:
    with Endpoint(limits=QUICK) as server:
        assert converse(server.address) == b""
        assert converse(server.address, LINE).startswith(b"HTTP/1.1 408 ")
        assert converse(server.address, b"GET /metrics\r\n").startswith(b"HTTP/1.1 408 ")
        with Connection(server.address) as idle:
            assert idle.request(Request("/"), keepalive=True).status == 200
            assert read_all(idle.socket) == b""
        with Connection(server.address) as slow:
            assert slow.request(Request("/"), keepalive=True).status == 200
            slow.socket.sendall(LINE)
            assert slow.read_response().status == 408


def test_trickle_does_not_put_off_the_deadline() -> None:
    with Endpoint(limits=QUICK) as server, Connection(server.address) as connection:
        began = time.monotonic()
        with pytest.raises(ConnectionError):  # noqa: PT012 - any of the sends may be the one
            while time.monotonic() < began + 60:
                connection.socket.sendall(b"G")
                time.sleep(0.02)
        assert time.monotonic() - began < PROMPT


def test_slow_reader_is_dropped_and_holds_nobody_up() -> None:
    with Endpoint(huge_families, limits=QUICK) as server, ExitStack() as clients:
        slow = [clients.enter_context(Connection(server.address)) for _ in range(10)]
        for client in slow:
            client.socket.sendall(Request("/metrics").encode("1.1", keepalive=False))
        began = time.monotonic()
        assert send(server.address, path="/-/healthy").status == 200
        assert time.monotonic() - began < PROMPT
        for client in slow:
            assert client.socket.recv(1)
        answered = time.monotonic()
        while time.monotonic() < answered + QUICK.write_seconds + 0.5:
            for client in slow:
                assert client.socket.recv(1)
            time.sleep(0.02)
        # The server has let go, so what the kernel held is followed by an end or a reset, not by more.
        for client in slow:
            with suppress(ConnectionError):
                assert len(read_all(client.socket)) < 20_000_000
        assert len(send(server.address, path="/metrics").body) > 20_000_000


def half_open(address: Address, number: int, clients: ExitStack, source: str | None = None) -> list[Connection]:
    """Begin this many requests that will never end."""
    connections = [clients.enter_context(Connection(address, source)) for _ in range(number)]
    for connection in connections:
        connection.socket.sendall(LINE)
    return connections


def still_open(connections: list[Connection]) -> int:
    """Count the connections that the server has not ended."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ)
        return len(connections) - len(selector.select(0))


def prompt_scrape(address: Address, source: str) -> None:
    """Scrape as any good client, which must not notice the others."""
    began = time.monotonic()
    assert send(address, path="/metrics", source_address=source).status == 200
    assert time.monotonic() - began < PROMPT


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_half_open_connections_hold_nobody_up(source: str) -> None:
    with Endpoint(limits=PATIENT) as server, ExitStack() as clients:
        for _ in range(3):
            half_open(server.address, 100, clients, "127.0.0.2")
            prompt_scrape(server.address, source)


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_at_the_cap_the_longest_waiting_of_the_greediest_make_room(source: str) -> None:
    with Endpoint(limits=replace(PATIENT, connections=50, grace_seconds=0.01)) as server, ExitStack() as clients:
        modest = half_open(server.address, 5, clients, "127.0.0.3")
        greedy = half_open(server.address, 300, clients, "127.0.0.2")
        prompt_scrape(server.address, source)
        wait_until(lambda: still_open(greedy) <= 45)
        assert still_open(greedy) >= 43
        assert still_open(greedy[-40:]) == 40
        assert still_open(modest) == 5


def test_nobody_is_sent_away_before_there_was_time_to_ask() -> None:
    limits = Limits(connections=10, grace_seconds=0.5)
    with Endpoint(limits=limits) as server, ExitStack() as clients:
        crowd = half_open(server.address, 30, clients)
        for client in crowd[:10]:
            client.socket.sendall(HOST + b"\r\n")
            assert client.read_response().status == 200


def test_unix_socket_at_the_cap(tmp_path: Path) -> None:
    limits = Limits(connections=10, grace_seconds=0.01)
    with Endpoint(bind_to=f"unix:{tmp_path}/s", limits=limits) as server, ExitStack() as clients:
        crowd = half_open(server.address, 40, clients)
        assert send(server.address, path="/metrics").status == 200
        wait_until(lambda: still_open(crowd) <= 10)


def test_when_all_are_being_served_newcomers_wait_for_a_place() -> None:
    released = threading.Event()

    def collect() -> list[Metric]:
        released.wait(10)
        return families()

    request = Request("/metrics").encode("1.1", keepalive=True)
    with Endpoint(collect, limits=Limits(connections=10)) as server, ExitStack() as clients:
        crowd = [clients.enter_context(Connection(server.address)) for _ in range(40)]
        for client in crowd:
            client.socket.sendall(request)
        assert still_open(crowd) == 40
        released.set()
        answers = []
        for client in crowd:
            answers.append(client.read_response())
            client.close()
    assert {answer.status for answer in answers} == {200}
    # With the house full, nobody may keep a place for a next request.
    assert not answers[0].keeps_alive


def test_different_name_filters_are_limited_and_hold_nobody_up() -> None:
    def collect() -> list[Metric]:
        time.sleep(0.2)
        return families()

    with Endpoint(collect, limits=Limits(waiting_filters=20)) as server, ExitStack() as clients:
        crowd = [clients.enter_context(Connection(server.address)) for _ in range(60)]
        for number, client in enumerate(crowd):
            request = Request(f"/metrics?name[]=pears&name[]=n{number}")
            client.socket.sendall(request.encode("1.1", keepalive=False))
        prompt_scrape(server.address, "127.0.0.1")
        # What ``metrics top`` asks for is served with the next page, whoever else asks for what.
        assert send(server.address, path=with_names("http://any/metrics").removeprefix("http://any")).status == 200
        answers = [client.read_response() for client in crowd]
    refused = [answer for answer in answers if answer.status == 503]
    assert 0 < len(refused) < 60
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert {answer.status for answer in answers} == {200, 503}


def test_a_filter_waits_for_its_turn_among_many_of_one_address() -> None:
    """Without that, whoever asks again and again for other names takes all places of a shared address."""
    collecting, released = threading.Event(), threading.Event()

    def collect() -> list[Metric]:
        collecting.set()
        assert released.wait(20)
        return families()

    with Endpoint(collect, limits=Limits(filters=4)) as server, ExitStack() as clients:

        def ask(query: str) -> Connection:
            client = clients.enter_context(Connection(server.address))
            client.socket.sendall(Request(f"/metrics{query}").encode("1.1", keepalive=False))
            return client

        first = ask("")
        assert collecting.wait(10)
        crowd = [ask(f"?name[]=n{number}") for number in range(40)]
        modest = ask("?name[]=pears")
        released.set()
        answers = [client.read_response() for client in (first, *crowd, modest)]
    assert {answer.status for answer in answers} == {200}
    assert "pears 4.0" in answers[-1].text


def test_client_that_leaves_while_its_page_is_made_is_no_fault() -> None:
    def collect() -> list[Metric]:
        time.sleep(0.1)
        return huge_families()

    with Endpoint(collect) as server:
        for _ in range(5):
            with Connection(server.address) as connection:
                connection.socket.sendall(Request("/metrics").encode("1.1", keepalive=True))
                connection.reset()
        prompt = send(server.address, path="/metrics")
    assert prompt.status == 200
    assert server.endpoint.faults.seen == {}


def test_a_thousand_scrapes_at_once_are_a_thousand_answers(server: Endpoint) -> None:
    request = Request("/metrics").encode("1.1", keepalive=False)
    received: dict[socket.socket, bytearray] = {}
    with ExitStack() as clients, selectors.DefaultSelector() as selector:
        for _ in range(1000):
            sock = clients.enter_context(socket.socket())
            sock.settimeout(0)
            sock.connect_ex(server.address)
            selector.register(sock, selectors.EVENT_WRITE)
        while selector.get_map():
            for key, events in selector.select(10):
                sock = key.fileobj  # type: ignore[assignment]
                if events & selectors.EVENT_WRITE:
                    sock.sendall(request)
                    received[sock] = bytearray()
                    selector.modify(sock, selectors.EVENT_READ)
                elif data := sock.recv(65536):
                    received[sock] += data
                else:
                    selector.unregister(sock)
    assert len(received) == 1000
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in received.values())
    assert all(answer.endswith(b"pears 4.0\n") for answer in received.values())
