"""What clients do not read: bounded in the kernel, for one connection and for all."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from promgun.endpoint.limits import Limits
from tests.support.endpoint_server import PROMPT, Endpoint, families, huge_families
from tests.support.http_client import Address, Connection, Request, send
from tests.support.sandbox import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the queues of sockets from /proc/net/tcp")

REQUEST = Request("/metrics").encode("1.1", keepalive=True)
#: Queues that stay long until the test is over.
PATIENT = Limits(write_seconds=60, linger_seconds=60)


def send_queues(address: Address) -> list[int]:
    """Return the bytes in the send queue of each socket of a port, those of ended processes included."""
    port = f":{address[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[4].partition(":")[0], 16) for row in rows if row[1].endswith(port) and row[3] != "0A"]


def still(address: Address) -> list[int]:
    """Return the queues when they do not grow any more."""
    queues = send_queues(address)

    def settled() -> bool:
        nonlocal queues
        time.sleep(0.3)
        before, queues = queues, send_queues(address)
        return sum(queues) <= sum(before)

    wait_until(settled)
    return queues


def test_one_connection_pins_little_however_much_it_asks_for() -> None:
    with Endpoint(huge_families, limits=PATIENT) as server, Connection(server.address) as greedy:
        greedy.socket.sendall(REQUEST * 100)
        wait_until(lambda: max(send_queues(server.address)) > 0)
        assert 0 < max(still(server.address)) <= PATIENT.unsent_connection_bytes
        assert send(server.address, path="/-/healthy").status == 200


def test_the_next_answer_waits_until_the_last_has_left() -> None:
    answered = []

    def healthy() -> bool:
        answered.append(1)
        return True

    with Endpoint(huge_families, healthy=healthy, limits=PATIENT) as server, Connection(server.address) as client:
        client.socket.sendall(REQUEST + Request("/-/healthy").encode("1.1", keepalive=True))
        wait_until(lambda: max(send_queues(server.address)) > 0)
        still(server.address)
        assert answered == []
        assert client.read_response().status == 200
        assert client.read_response().status == 200
        assert answered == [1]


def test_all_connections_together_pin_little_and_hold_nobody_up() -> None:
    limits = Limits(write_seconds=60, linger_seconds=60, unsent_bytes=4 * 1024 * 1024)
    with Endpoint(huge_families, limits=limits) as server, ExitStack() as clients:
        for number in range(100):
            client = clients.enter_context(Connection(server.address, "127.0.0.2"))
            client.socket.sendall(
                REQUEST if number % 2 else REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            )
        wait_until(lambda: len([size for size in send_queues(server.address) if size]) > 10)
        assert sum(still(server.address)) <= limits.unsent_bytes
        # Whoever reads gets all of it, from the same address too.
        for source in ("127.0.0.2", "127.0.0.3"):
            assert len(send(server.address, path="/metrics", source_address=source).body) > 20_000_000
        assert sum(still(server.address)) <= limits.unsent_bytes
        assert server.endpoint.faults.seen == {}


def test_what_was_unsent_is_dropped_with_its_connection() -> None:
    limits = Limits(write_seconds=4, linger_seconds=0.2)
    with Endpoint(huge_families, limits=limits) as server, Connection(server.address) as client:
        client.socket.sendall(REQUEST)
        wait_until(lambda: max(send_queues(server.address), default=0) > 0)
        wait_until(lambda: sum(send_queues(server.address)) == 0)


def test_pipelining_is_not_slowed_down() -> None:
    with Endpoint(families) as server, Connection(server.address) as client:
        began = time.monotonic()
        client.socket.sendall(Request("/-/healthy").encode("1.1", keepalive=True) * 300)
        assert {client.read_response().status for _ in range(300)} == {200}
        # An acknowledgement may be put off for 40 ms: an answer that waited for it would take 12 s for all.
        assert time.monotonic() - began < 2 * PROMPT


def test_unix_sockets_are_bounded_too(tmp_path: Path) -> None:
    answered = []

    def healthy() -> bool:
        answered.append(1)
        return True

    with (
        Endpoint(huge_families, healthy=healthy, limits=PATIENT, bind_to=f"unix:{tmp_path}/s") as server,
        Connection(server.address) as client,
    ):
        client.socket.sendall(
            Request("/").encode("1.1", keepalive=True) + Request("/-/healthy").encode("1.1", keepalive=True) * 2
        )
        time.sleep(0.5)
        assert answered == []
        assert [client.read_response().status for _ in range(3)] == [200] * 3
