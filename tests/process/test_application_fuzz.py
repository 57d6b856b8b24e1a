"""Requests put together at random from a seed, sent to the application: the server serves on and counts right."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

import pytest

from tests.process.test_endpoint_fuzz import REQUESTS as LONG
from tests.process.test_endpoint_fuzz import SEED, request
from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import load

#: A third of what the endpoint gets, because two servers take it.
REQUESTS = max(LONG // 3, 100) if LONG < 1000 else LONG
SERVED = "gunicorn_requests_total"


def converse(address: object, sent: bytes) -> None:
    """Send, end our direction, and read to the end; a reset is an end too."""
    with suppress(ConnectionError), socket.create_connection(address, 20) as sock:  # type: ignore[arg-type]
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass


@pytest.mark.time_limit(120 + REQUESTS // 5)
@pytest.mark.parametrize("worker_type", ["sync", "gthread"])
def test_random_requests_leave_a_server_that_serves_and_counts(sandbox: Sandbox, worker_type: str) -> None:
    rng = random.Random(SEED)
    with PromgunProcess("--worker-type", worker_type, sandbox=sandbox, app="counting:app", workers=1) as server:
        for _ in range(REQUESTS):
            converse(server.address, request(rng))
        workers = server.workers()
        wait_until(lambda: server.scrape().sum("gunicorn_requests_in_progress") == 0)
        before = server.scrape()
        assert load(server.address, 20, path="/ok", keepalive=False) == {200: 20}
        wait_until(lambda: server.scrape().sum(SERVED) == before.sum(SERVED) + 20)
        assert server.scrape().sum("gunicorn_request_duration_seconds_count") == server.scrape().sum(SERVED)
        assert server.scrape().sum("gunicorn_requests_lost_total") == 0
        assert server.workers() == workers
        assert "/promgun/" not in server.log, "no traceback leads through promgun"
