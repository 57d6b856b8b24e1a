"""The metrics process beside a real server: what it is, what it serves, and that nothing a client does stops it."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import Connection, Request, load, send
from tests.support.sockets import connections_of

REQUESTS = "gunicorn_requests_total"


def test_it_is_a_process_of_its_own() -> None:
    with PromgunProcess("--preload", app="counting:app", workers=2) as server:
        pid = server.metrics_pid()
        assert pid
        metrics_port = server.metrics_addresses[0][1]
        application_port = server.addresses[0][1]
        assert ports(pid) == {metrics_port}
        for worker in server.workers():
            assert ports(worker) == {application_port}
        maps = Path(f"/proc/{pid}/maps").read_text() if Path("/proc").exists() else ""
        assert "counter_slot" not in maps


def ports(pid: int) -> set[int]:
    """Return the ports that a process listens on."""
    connections = connections_of(pid)
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


def test_signals_of_a_terminal_do_not_end_it() -> None:
    with PromgunProcess() as server:
        pid = server.metrics_pid()
        assert pid
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
            os.kill(pid, number)
        server.fresh()
        assert server.metrics_pid() == pid


def test_pages() -> None:
    with PromgunProcess() as server:
        send(server.address, path="/fast")
        server.expect(REQUESTS, 1)
        address = server.metrics_address
        assert send(address, path="/-/healthy").status == 200
        assert send(address, path="/-/ready").status == 200
        landing = send(address)
        assert landing.status == 200
        assert "/metrics" in landing.text
        assert send(address, path="/nothing").status == 404
        assert send(address, "POST", "/metrics").status == 405
        head = send(address, "HEAD", "/metrics")
        assert (head.status, head.body) == (200, b"")

        plain = send(address, path="/metrics")
        assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
        packed = send(address, path="/metrics", headers=[("Accept-Encoding", "gzip")])
        assert packed.headers["content-encoding"] == "gzip"
        assert b"gunicorn_requests_total{" in gzip.decompress(packed.body)
        modern = send(address, path="/metrics", headers=[("Accept", "application/openmetrics-text; version=1.0.0")])
        assert modern.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        names = {family.name for family in text_string_to_metric_families(modern.text)}  # type: ignore[no-untyped-call]
        assert {"gunicorn_requests", "gunicorn_request_duration_seconds"} <= names

        page = server.scrape(f"?name[]={REQUESTS}&name[]=gunicorn_up")
        assert {sample.name for sample in page.samples} == {REQUESTS, "gunicorn_up"}


def test_not_ready_before_a_worker_has_booted() -> None:
    with Sandbox() as sandbox:
        slow = "import time, pathlib\nwhile not pathlib.Path('go').exists(): time.sleep(0.02)\n"
        sandbox.write("slow_to_load.py", slow + "from promgun.demo import app\n")
        server = PromgunProcess(app="slow_to_load:app", sandbox=sandbox)
        server.start()
        try:
            wait_until(lambda: "Metrics at" in server.log)
            wait_until(lambda: send(server.metrics_address, path="/-/healthy").status == 200)
            assert send(server.metrics_address, path="/-/ready").status == 503
            assert server.scrape().by("state", "gunicorn_worker_state") == {"booting": 1}
            sandbox.write("go", "")
            wait_until(lambda: send(server.metrics_address, path="/-/ready").status == 200)
        finally:
            assert server.stop() == 0


def test_server_without_it() -> None:
    with PromgunProcess("--no-metrics-server", metrics=None, workers=2) as server:
        assert server.metrics_pid() is None
        assert load(server.address, 10, path="/fast") == {200: 10}
        wait_until(lambda: server.dump().sum(REQUESTS) == 10)
        assert "Metrics at" not in server.log


def test_page_is_served_while_every_worker_is_held() -> None:
    with (
        Sandbox() as sandbox,
        PromgunProcess(app="probe:app", sandbox=sandbox, workers=2) as server,
        ExitStack() as connections,
    ):
        for number in range(2):
            connection = connections.enter_context(Connection(server.address))
            connection.socket.sendall(Request(f"/gate/{number}").encode("1.1", keepalive=False))
        server.expect("gunicorn_worker_requests_in_progress", 2)
        assert server.fresh().sum("gunicorn_worker_requests_in_progress") == 2
        for number in range(2):
            sandbox.write(str(number), "")


def test_bad_clients_do_not_keep_a_good_one_waiting() -> None:
    with PromgunProcess() as server, ExitStack() as connections:
        pid = server.metrics_pid()
        assert pid
        process = psutil.Process(pid)
        server.scrape()
        memory = process.memory_info().rss
        for number in range(300):
            connection = connections.enter_context(Connection(server.metrics_address, "127.0.0.2"))
            with_a_start = (b"", b"GET /metrics HTTP/1.1\r\nHost:", b"\x16\x03\x01\x02\x00", b"\r\n" * 10)
            connection.socket.sendall(with_a_start[number % 4])
        taken = []
        for _ in range(20):
            start = time.monotonic()
            response = send(server.metrics_address, path="/metrics", source_address="127.0.0.3")
            assert response.status == 200
            taken.append(time.monotonic() - start)
        # Whoever waits for a bad client waits 5 s; a busy machine delays one scrape, not most.
        assert median(taken) < 2.5
        assert process.memory_info().rss - memory < 20e6
        assert server.metrics_pid() == pid


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        bytes(range(256)) * 10 + b"\r\n\r\n",
        b"GET /<script>alert(1)</script> HTTP/1.1\r\nHost: <script>\r\nAccept: <script>\r\n\r\n",
    ],
    ids=["request line", "header", "garbage", "markup"],
)
def test_nothing_that_a_client_sends_comes_back(raw: bytes) -> None:
    with PromgunProcess() as server:
        with socket.create_connection(server.metrics_addresses[0], 10) as client:  # type: ignore[arg-type]
            answer = b""
            try:
                client.sendall(raw)
                client.shutdown(socket.SHUT_WR)
                while data := client.recv(65_536):
                    answer += data
            except ConnectionError:
                pass  # it may be refused before it was read to its end
        assert b"script" not in answer
        assert b"xxxxx" not in answer
        if answer:
            assert 400 <= int(answer.split()[1]) < 500
        server.scrape()


def test_a_thousand_scrapes() -> None:
    with PromgunProcess() as server:
        pid = server.metrics_pid()
        statuses = load(server.metrics_address, 1000, concurrency=50, path="/metrics", keepalive=False)
        assert statuses == Counter({200: 1000})
        assert server.metrics_pid() == pid
