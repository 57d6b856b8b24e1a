"""What is seen of a server that is full: queues, busy time, running requests."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.support.counted import Counted
from tests.support.harness import Page, PromgunProcess, Sandbox, wait_until
from tests.support.http_client import Address, Connection, Request, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells only on Linux")

WAITING = "gunicorn_listener_queue_connections"
BUSY = "gunicorn_worker_busy_seconds_total"


Hold: TypeAlias = "Callable[..., Connection]"


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Send requests that stay in the application until a file of the gate's name is written."""
    with ExitStack() as connections:

        def send_and_wait(server: PromgunProcess, sandbox: Sandbox, name: str = "gate") -> Connection:
            connection = connections.enter_context(Connection(server.address))
            connection.socket.sendall(Request(f"/gate/{name}?secret=1").encode("1.1", keepalive=False))
            wait_until((sandbox.directory / f"{name}.waiting").exists)
            return connection

        yield send_and_wait


@contextmanager
def clients(address: Address, count: int) -> Iterator[list[socket.socket]]:
    """Connect so many clients that nobody has time for, and let each send a request."""
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            client = stack.enter_context(socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET))
            client.connect(address)
            client.sendall(Request("/ok").encode("1.1", keepalive=False))
            opened.append(client)
        yield opened


def test_a_full_server_answers_scrapes_and_shows_who_waits(hold: Hold) -> None:
    with Sandbox() as sandbox, PromgunProcess(app="probe:app", workers=4, sandbox=sandbox) as server:
        held = [hold(server, sandbox, f"gate{number}") for number in range(4)]
        with clients(server.address, 20) as waiting:
            page = wait_until(lambda: page if (page := server.scrape()).sum(WAITING) == 20 else None)
            assert page.by("state", "gunicorn_worker_state") == {"busy": 4}
            assert page.sum("gunicorn_worker_requests_in_progress") == 4
            assert page.sum("gunicorn_worker_capacity") == 4
            assert page.sum("gunicorn_listener_queue_limit") >= 20
            assert all(sample.value > 0 for sample in page.select("gunicorn_worker_oldest_request_seconds"))
            for number in range(4):
                sandbox.write(f"gate{number}", "")
            assert [connection.read_response().status for connection in held] == [200] * 4
            for client in waiting:
                assert client.recv(4096).startswith(b"HTTP/1.1 200")
        server.expect("gunicorn_requests_total", 24, status="200")
        server.expect("gunicorn_request_queue_seconds_count", 24, source="kernel")
        assert server.scrape().sum("gunicorn_request_queue_seconds_sum", source="kernel") > 0
        assert server.fresh().sum(WAITING) == 0


def test_the_queue_of_a_unix_socket(hold: Hold) -> None:
    with Sandbox() as sandbox:
        path = sandbox.directory / "app.sock"
        with PromgunProcess(app="probe:app", bind=f"unix:{path}", workers=1, sandbox=sandbox) as server:
            hold(server, sandbox, "gate")
            with clients(str(path), 3):
                wait_until(lambda: server.scrape().sum(WAITING, listener=f"unix:{path}") == 3)
                sandbox.write("gate", "")


def assert_collections_and_waits_for_the_cpu_are_counted(page: Page) -> None:
    collections = page.select("gunicorn_worker_gc_collections_total")
    assert {sample.labels["generation"] for sample in collections} == {"0", "1", "2"}
    assert page.select("gunicorn_worker_gc_pause_seconds_total")
    assert page.select("gunicorn_worker_cpu_wait_seconds_total")
    assert page.sum("gunicorn_worker_boot_seconds_count") == 1


def test_busy_seconds_grow_while_a_request_runs_and_agree_with_its_end(hold: Hold, worker_type: str) -> None:
    with Sandbox() as sandbox:
        threads = ("--threads", "4") if worker_type == "gthread" else ()
        with PromgunProcess("-k", worker_type, *threads, app="probe:app", workers=1, sandbox=sandbox) as server:
            assert_collections_and_waits_for_the_cpu_are_counted(server.scrape())
            begin = time.monotonic()
            connection = hold(server, sandbox, "gate")
            begun = time.monotonic()
            first = wait_until(lambda: busy if (busy := server.scrape().sum(BUSY)) > 0.3 else None)
            assert first <= time.monotonic() - begin
            wait_until(lambda: server.scrape().sum(BUSY) > first)
            shortest = time.monotonic() - begun
            sandbox.write("gate", "")
            connection.read_response()
            # A worker may book the end of a request a moment after its client has the answer.
            server.expect("gunicorn_worker_requests_in_progress", 0)
            longest = time.monotonic() - begin
            total = server.fresh().sum(BUSY)
            assert shortest <= total <= longest + 0.2
            assert server.fresh().sum(BUSY) == total


def test_busy_time_of_a_killed_worker_is_kept_and_never_sinks(hold: Hold) -> None:
    with Sandbox() as sandbox, PromgunProcess(app="probe:app", workers=1, sandbox=sandbox) as server:
        hold(server, sandbox, "gate")
        before = wait_until(lambda: busy if (busy := server.scrape().sum(BUSY)) > 0.2 else None)
        server.send_signal(signal.SIGKILL, server.workers()[0])
        wait_until(lambda: server.scrape().sum("gunicorn_worker_exits_total", cause="killed") == 1)
        wait_until(lambda: server.scrape().sum("gunicorn_workers", state="booted") == 1)
        after = server.scrape().sum(BUSY)
        assert after >= before
        assert server.fresh().sum(BUSY) == after


def test_a_stopped_worker_blocks_nobody(hold: Hold, worker_type: str) -> None:
    options = ("-k", worker_type, "--graceful-timeout", "1")
    threads = ("--threads", "4") if worker_type == "gthread" else ()
    with (
        Sandbox() as sandbox,
        PromgunProcess(*options, *threads, app="probe:app", workers=1, sandbox=sandbox) as server,
    ):
        hold(server, sandbox, "gate")
        (worker,) = server.workers()
        server.send_signal(signal.SIGSTOP, worker)
        assert server.fresh().by("state", "gunicorn_worker_state") == {"busy": 1}
        assert send(server.metrics_address, path="/status.json").status == 200
        shown = sandbox.run("-m", "promgun", "ps", "--requests", "--format", "json")
        (row,) = json.loads(shown.stdout)
        assert (row["pid"], row["method"], row["path"], row["phase"]) == (worker, "GET", "/gate/gate", "application")
        assert "secret" not in shown.stdout
        server.send_signal(signal.SIGTTIN)
        wait_until(lambda: server.scrape().by("state", "gunicorn_workers").get("booted") == 2)
        assert send(server.address, path="/ok").status == 200
        # The end of the block stops the server, whose master kills what does not end by itself.


def test_a_silent_worker_is_hung_before_it_is_killed() -> None:
    with PromgunProcess("--timeout", "20", workers=1, app="probe:app") as server:
        (worker,) = server.workers()
        server.send_signal(signal.SIGSTOP, worker)
        wait_until(lambda: server.scrape().by("state", "gunicorn_worker_state") == {"hung": 1})
        assert server.scrape().sum("gunicorn_worker_heartbeat_age_seconds") >= 10
        server.send_signal(signal.SIGCONT, worker)
        wait_until(lambda: server.scrape().by("state", "gunicorn_worker_state") == {"idle": 1})


def test_the_proxy_says_since_when_a_request_waits() -> None:
    with PromgunProcess(app="probe:app") as shared:
        for form in ("t={}.500", "{}.500", "t={}500", "{}500000"):
            server = Counted(shared)
            second = int(time.time()) - 2
            shortest = longest = 0.0
            for header in ("X-Request-Start", "X-Queue-Start"):
                shortest += time.time() - (second + 0.5)
                send(server.address, "GET", "/ok", headers=[(header, form.format(second))])
                longest += time.time() - (second + 0.5)
            for nonsense in ("tomorrow", f"t={time.time() + 60}", "0", "-5", ""):
                send(server.address, "GET", "/ok", headers=[("X-Request-Start", nonsense)])
            server.expect("gunicorn_requests_total", 7)
            page = server.scrape()
            assert page.sum("gunicorn_request_queue_seconds_count", source="proxy") == 2, form
            waited = page.sum("gunicorn_request_queue_seconds_sum", source="proxy")
            assert shortest - 1e-6 <= waited <= longest + 1e-6, form


def test_a_stranger_s_stamp_is_not_believed() -> None:
    with PromgunProcess("--forwarded-allow-ips", "10.1.1.1", app="probe:app") as server:
        send(server.address, "GET", "/ok", headers=[("X-Request-Start", f"t={time.time() - 2}")])
        server.expect("gunicorn_requests_total", 1)
        assert server.scrape().sum("gunicorn_request_queue_seconds_count", source="proxy") == 0
