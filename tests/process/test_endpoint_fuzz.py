"""Requests put together at random from a seed: the endpoint answers each with a status of its own, and goes on."""

from __future__ import annotations

import os
import random
import re
import socket
from contextlib import suppress

import pytest

from tests.support.endpoint_server import Endpoint
from tests.support.http_client import send

#: In CI a short form; ``PROMGUN_FUZZ_REQUESTS=5000`` is the long one.
REQUESTS = int(os.environ.get("PROMGUN_FUZZ_REQUESTS", "500"))
SEED = int(os.environ.get("PROMGUN_FUZZ_SEED", "9"))
EXPECTED = {200, 400, 403, 404, 405, 408, 413, 414, 417, 421, 431, 501, 505}

METHODS = (b"GET", b"HEAD", b"POST", b"get", b"G\0T", b"", b"TRACE", b"CONNECT", b"PRI", b"\xff" * 5)
TARGETS = (
    *(b"/metrics", b"/", b"/status.json", b"/-/healthy", b"*", b"//", b"/%00", b"/metrics?name[]=" + b"a" * 2000),
    *(b"http://localhost/metrics", b"http://[::1", b"http://@/", b"://", b"/metrics?" + b"name[]=a&" * 70, b"evil:443"),
    *(b"/\xc3\xa9", b"/metrics?%zz&name[]=%ff%fe", b"/" + b"x" * 9000, b" ", b"/metrics#x"),
)
VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"http/1.1", b"", b"HTTP/1.1 ")
NAMES = (
    *(b"Host", b"Accept", b"Accept-Encoding", b"Authorization", b"Content-Length", b"Transfer-Encoding", b"Expect"),
    *(b"Connection", b"Sec-Fetch-Site", b"Sec-Fetch-Mode", b"Upgrade", b"X\0", b"", b" Host", b"Cookie"),
)
VALUES = (
    *(b"localhost", b"evil.example", b"[::1]:1", b"127.0.0.1:99999999", b":", b"", b"\xff\xfe", b"*/*;q=9e999"),
    *(
        b"text/plain;version=" + b"9" * 500,
        b"gzip;q=nan,*;q=",
        b"Basic !!!",
        b"Bearer " + b"x" * 3000,
        b"-1",
        b"0",
        b"5",
    ),
    *(b"99999999999999999999999", b"chunked", b"chunked, gzip", b"100-continue", b"close", b"cross-site", b"a\0b"),
    *(b"x" * 9000, b"\t\t", b"a\r b", b",,,,;;;;====", b'"\\'),
)
ENDS = (
    b"\r\n\r\n",
    b"\n\n",
    b"\r\n",
    b"",
    b"\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
    b"\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
)


def request(rng: random.Random) -> bytes:
    """Make one request, a good one now and then, or one with some bytes changed, lost or doubled."""
    lines = [
        b" ".join((rng.choice(METHODS[:3] * 4 + METHODS), rng.choice(TARGETS), rng.choice(VERSIONS[:2] * 4 + VERSIONS)))
    ]
    if rng.random() < 0.8:
        lines.append(b"Host: localhost")
    lines += (
        rng.choice(NAMES) + rng.choice((b": ", b":", b" : ", b"")) + rng.choice(VALUES) for _ in range(rng.randrange(5))
    )
    data = bytearray(b"\r\n".join(lines) + rng.choice(ENDS[:1] * 6 + ENDS))
    for _ in range(rng.choice((0, 0, 0, 1, 5))):
        if data:
            place = rng.randrange(len(data))
            data[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(data)


@pytest.mark.time_limit(60 + REQUESTS // 10)
def test_random_requests_get_an_answer_or_an_end_and_never_an_error() -> None:
    rng = random.Random(SEED)
    seen: dict[int, int] = {}
    with Endpoint() as server:
        for number in range(REQUESTS):
            sent = request(rng)
            # Ended on our side, so that half a request is no wait for a deadline.
            answer = converse_and_end(server, sent)
            statuses = [int(found) for found in re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer, re.MULTILINE)]
            assert set(statuses) <= EXPECTED, (number, sent, answer[:200])
            for status in statuses:
                seen[status] = seen.get(status, 0) + 1
        assert send(server.address, path="/metrics").status == 200
        assert server.endpoint.faults.seen == {}
    # The mixture reaches all kinds of refusals.
    assert {200, 400, 404, 405, 421} <= set(seen), seen


def converse_and_end(server: Endpoint, sent: bytes) -> bytes:
    """Send, end our direction, and read to the end; a reset is an end too where bytes were left unread."""
    with socket.create_connection(server.address, 20) as sock:  # type: ignore[arg-type]
        received = bytearray()
        with suppress(ConnectionError):
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                received += data
        return bytes(received)
