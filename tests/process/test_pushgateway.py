"""Short-lived servers push their final page: to Debian's Pushgateway, and to gateways that misbehave."""

from __future__ import annotations

import re
import signal
import socket
import time

import pytest

from tests.support.harness import DEADLINE, PromgunProcess, Sandbox
from tests.support.http_client import load, send
from tests.support.page import Page
from tests.support.servers import pushgateway

HOST = socket.gethostname()
PUSHED = "Final metrics pushed to"
FAILED = "The final metrics could not be pushed to"


@pytest.mark.needs("prometheus-pushgateway")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_final_page_arrives(ending: signal.Signals) -> None:
    with Sandbox() as sandbox, pushgateway(sandbox) as address:
        url = f"http://{address[0]}:{address[1]}"
        push = ("--push-gateway", url, "--push-gateway-job", "night/batch")
        with PromgunProcess(*push, app="counting:app", sandbox=sandbox, workers=2) as server:
            assert load(server.address, 30, path="/pen") == {200: 30}
            server.expect("gunicorn_requests_total", 30)
            assert server.stop(ending) == 0
            assert server.log.count(PUSHED) == 1
        page = Page(send(address, path="/metrics").text)
        of_it = {"job": "night/batch", "instance": HOST}
        assert page.sum("gunicorn_requests_total", **of_it, status=200) == 30
        assert page.sum("gunicorn_request_duration_seconds_count", **of_it) == 30
        assert page.sum("shop_orders_total", **of_it, kind="pen") == 30
        # The page is the last there is: the workers' ends are in it.
        assert page.sum("gunicorn_worker_exits_total", **of_it, cause="shutdown") == 2
        assert page.sum("gunicorn_workers", **of_it, state="alive") == 0
        assert page.select("gunicorn_up") == []


@pytest.mark.needs("prometheus-pushgateway")
def test_a_second_run_replaces_the_first(sandbox: Sandbox) -> None:
    with pushgateway(sandbox) as address:
        for requests in (20, 7):
            url = f"http://{address[0]}:{address[1]}/"
            with PromgunProcess("--push-gateway", url, "--name", "batch", sandbox=sandbox, workers=1) as server:
                assert load(server.address, requests) == {200: requests}
                server.expect("gunicorn_requests_total", requests)
            page = Page(send(address, path="/metrics").text)
            assert page.sum("gunicorn_requests_total", job="batch") == requests


@pytest.mark.needs("prometheus-pushgateway")
def test_after_an_upgrade_the_last_master_pushes_once(sandbox: Sandbox) -> None:
    with pushgateway(sandbox) as address:
        url = f"http://{address[0]}:{address[1]}"
        with PromgunProcess("--push-gateway", url, "--name", "batch", sandbox=sandbox, workers=1) as server:
            old = server.master_pid
            server.send_signal(signal.SIGUSR2)
            server.expect("gunicorn_workers", 2, state="booted")
            server.send_signal(signal.SIGTERM, old)
            assert server.wait() == 0
            assert PUSHED not in server.log
            assert load(server.address, 5) == {200: 5}
            server.expect("gunicorn_requests_total", 5)
        assert server.log.count(PUSHED) == 1
        assert Page(send(address, path="/metrics").text).sum("gunicorn_requests_total", job="batch") == 5


def stopped(url: str) -> tuple[float, str]:
    """Run a server that is to push there; return how long it took to end, and what it logged about that."""
    with PromgunProcess("--push-gateway", url, "--no-control-socket", workers=1) as server:
        start = time.monotonic()
        assert server.stop() == 0
        seconds = time.monotonic() - start
    (line,) = [line for line in server.log.splitlines() if FAILED in line or PUSHED in line]
    assert "Traceback" not in server.log
    return seconds, line


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    seconds, line = stopped(f"http://127.0.0.1:{port}")
    assert "refused" in line
    assert "[ERROR]" in line
    assert seconds < DEADLINE


def test_no_answer_delays_the_exit_by_a_few_seconds_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seconds, line = stopped(f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert re.search(r"timed out|no answer within 3 s", line)
    assert 2 < seconds < DEADLINE
