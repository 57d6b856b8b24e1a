"""Descriptors: where plain Gunicorn has enough of them, so has promgun."""

from __future__ import annotations

import os
import sys

import pytest

from tests.support.harness import GUNICORN, PromgunProcess, wait_until
from tests.support.http_client import send

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")

WORKERS = 24
LIMIT = 40
CONFIG = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))\n"


def held(server: PromgunProcess) -> tuple[int, int]:
    """Return how many descriptors the master has open, and the most that a worker has."""
    wait_until(lambda: "Control socket listening" in server.log)
    master, *workers = [len(os.listdir(f"/proc/{pid}/fd")) for pid in (server.master_pid, *server.workers())]
    return master, max(workers)


def test_a_limit_that_plain_gunicorn_serves_under_is_enough() -> None:
    with PromgunProcess(command=GUNICORN, metrics=None, config=CONFIG, workers=1) as server:
        send(server.address)
        in_master, in_worker = held(server)
    assert in_master - 1 + WORKERS <= LIMIT, "plain Gunicorn's master has one descriptor a worker"
    with PromgunProcess(config=CONFIG, workers=WORKERS) as server:
        assert send(server.address).status == 200
        server.expect("gunicorn_requests_total", 1)
        # More than plain: the run's directory, the metrics listener, m0 and m0.workers; a slot's lock and its file.
        master, worker = held(server)
        assert master <= in_master - 1 + WORKERS + 4
        assert worker <= in_worker + 2
