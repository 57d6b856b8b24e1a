"""A metrics process of its own, with a collector that needs no store."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from promgun.endpoint.process import EndpointConfig, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.http_client import Address

COLLECTOR = """
import os
import time
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

class Collector:
    def __init__(self, store, log, unique_memory):
        self.store = store
    def collect(self):
        time.sleep(float(os.environ.get("TEST_COLLECT_SECONDS", "0")))
        who = GaugeMetricFamily("who", "Who reads.", labels=["store", "cwd", "multiproc"])
        who.add_metric([str(self.store), os.getcwd(), os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")], os.getpid())
        many = CounterMetricFamily("many", "Many.", labels=["number"])
        for number in range(1000):
            many.add_metric([str(number)], number)
        return [who, many]
    def master_alive(self):
        return True
    def worker_booted(self):
        return True
"""


def config(**changes: object) -> EndpointConfig:
    return EndpointConfig(
        **{"store": "/some/store", "master_pid": os.getpid(), "collector": "test_collector:Collector", **changes}  # type: ignore[arg-type]
    )


@contextmanager
def running(listener: socket.socket, **changes: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a metrics process until the end of the block, by force if need be."""
    process = spawn(config(**changes), [listener])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def address(listener: socket.socket) -> Address:
    host, port = listener.getsockname()[:2]
    return (host, port)
