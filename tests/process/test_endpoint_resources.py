"""What the metrics process uses when much is asked of it, and when little is allowed."""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil
import pytest

from promgun.config.listeners import bind
from promgun.config.metrics_addresses import parse_address
from tests.support.endpoint_process import COLLECTOR, address, running
from tests.support.http_client import Connection, Request, send

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a collector that every interpreter can import."""
    (tmp_path / "test_collector.py").write_text(COLLECTOR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    sock = bind(parse_address("127.0.0.1:0"))
    yield sock
    sock.close()


def test_scrapes_and_half_requests_leave_memory_flat(listener: socket.socket) -> None:
    with running(listener) as process, ExitStack() as clients:
        send(address(listener), path="/metrics")
        small = psutil.Process(process.pid).memory_info().rss
        for number in range(1200):
            client = clients.enter_context(Connection(address(listener), f"127.0.0.{2 + number % 3}"))
            client.socket.sendall(b"GET /metrics HTTP/1.1\r\n" + b"x" * 8000)
        crowd = []
        for _ in range(500):
            crowd.append(clients.enter_context(Connection(address(listener))))
            crowd[-1].socket.sendall(Request("/metrics").encode("1.1", keepalive=False))
        assert {client.read_response().status for client in crowd} == {200}
        assert psutil.Process(process.pid).memory_info().rss < small + 40_000_000


def test_few_open_files_are_enough(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_COLLECT_SECONDS", "0.05")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running(listener) as process, ExitStack() as clients:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (64, 64))
        crowd = [clients.enter_context(Connection(address(listener))) for _ in range(120)]
        for client in crowd[:60]:
            client.socket.sendall(b"GET")
        for client in crowd[60:]:
            client.socket.sendall(Request("/metrics").encode("1.1", keepalive=False))
        assert {client.read_response().status for client in crowd[60:]} == {200}
        assert cpu_share(psutil.Process(process.pid)) < 0.1
        assert send(address(listener), path="/metrics").status == 200
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_no_open_files_left_is_waited_out(listener: socket.socket, capfd: pytest.CaptureFixture[str]) -> None:
    with running(listener) as process:
        assert send(address(listener), path="/metrics").status == 200
        used = psutil.Process(process.pid)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used.num_fds() + 5, 5000))
        with ExitStack() as clients:
            crowd = [clients.enter_context(Connection(address(listener))) for _ in range(20)]
            assert cpu_share(used) < 0.1
            # Whoever has come too late is told so.
            assert crowd[-1].read_response().status == 503
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (5000, 5000))
        assert send(address(listener), path="/metrics").status == 200
    assert capfd.readouterr().err.count("\n") == 1


def cpu_share(process: psutil.Process) -> float:
    """Measure for a second how much of one CPU a process uses."""
    before = process.cpu_times()
    time.sleep(1)
    after = process.cpu_times()
    return float(after.user + after.system - before.user - before.system)
