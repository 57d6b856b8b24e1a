"""Every request ends in exactly one book: answered, lost, or left without an answer; or it became a websocket.

Each worker type has one server. One way of ending after another is tried on it, and after each the books must say what
the client saw, and sum up to what was sent.
"""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.harness import Page, PromgunProcess, Sandbox, wait_until
from tests.support.http_client import Connection, Request, send

pytestmark = pytest.mark.seam

BOOKS = {
    "answered": ("status", "gunicorn_requests_total"),
    "lost": ("cause", "gunicorn_requests_lost_total"),
    "unanswered": ("reason", "gunicorn_requests_unanswered_total"),
    "websocket": ("result", "gunicorn_websocket_connections_total"),
}
WORDS = {
    "failed": ("error_type", "gunicorn_failed_requests_total"),
    "left": ("phase", "gunicorn_client_disconnects_total"),
}
UPGRADE = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", "x"))
CUT = "was still serving after --graceful-timeout: GET"
TIMEOUT = 4
GRACEFUL = 1


def read(page: Page, table: dict[str, tuple[str, str]]) -> Counter[str]:
    """Return what a page says, as ``answered 200``."""
    return Counter(
        {
            f"{name} {value}": int(count)
            for name, (label, family) in table.items()
            for value, count in page.by(label, family).items()
        }
    )


@dataclass
class Server:
    """A server, and how many requests were sent to it."""

    process: PromgunProcess
    sandbox: Sandbox
    kind: str = ""
    sent: int = 0

    def open(self, request: Request | bytes) -> Connection:
        """Send a request, and leave the connection open."""
        connection = Connection(self.process.address)
        raw = request if isinstance(request, bytes) else request.encode("1.1", keepalive=False)
        connection.socket.sendall(raw)
        self.sent += 1
        return connection

    def status(self, path: str) -> int:
        """Send a request; return the status of the answer, 0 where there was none."""
        with self.open(Request(path)) as connection, suppress(ConnectionError, TimeoutError, IndexError):
            return connection.read_response().status
        return 0

    @contextmanager
    def held(self, path: str) -> Iterator[Connection]:
        """Send a request that waits in the application while the block runs."""
        waiting = self.sandbox.directory / f"{Path(path).name}.waiting"
        with self.open(Request(path)) as connection:
            wait_until(waiting.exists)
            yield connection
        waiting.unlink(missing_ok=True)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal the worker."""
        self.process.send_signal(number, self.process.workers()[0])

    def go(self, name: str = "gate") -> None:
        """Open a gate."""
        self.sandbox.write(name, "")


def answered(server: Server) -> None:
    assert server.status("/ok") == 200


def view_exception(server: Server) -> None:
    assert server.status("/fail/ValueError") == 500


def stop_iteration(server: Server) -> None:
    assert server.status("/fail/StopIteration") == 0


def system_exit(server: Server) -> None:
    server.status("/fail/SystemExit")


def stop_iteration_in_the_body(server: Server) -> None:
    assert server.status("/body/StopIteration") == 0


def system_exit_in_the_body(server: Server) -> None:
    server.status("/body/SystemExit")


def os_error(server: Server) -> None:
    assert server.status("/fail/BrokenPipeError") == 0


def os_error_behind_a_status(server: Server) -> None:
    assert server.status("/unread") == 0


def client_leaves_before_the_answer(server: Server) -> None:
    with server.held("/gate/before") as connection:
        connection.reset()
        server.go("before")


def client_leaves_before_a_failure(server: Server) -> None:
    with server.held("/sink/sink") as connection:
        connection.reset()
        (server.sandbox.directory / "sink.waiting").unlink()


def client_leaves_an_upload(server: Server) -> None:
    server.open(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nonly this").close()


def client_leaves_a_chunked_upload(server: Server) -> None:
    server.open(b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nonly this").close()


def client_leaves_a_stream(server: Server) -> None:
    connection = server.open(Request("/endless"))
    assert connection.socket.recv(65_536)
    connection.reset()


def hijack(server: Server) -> None:
    with server.open(Request("/websocket", headers=UPGRADE)) as connection:
        assert connection.socket.recv(1024).startswith(b"HTTP/1.1 101")
        page = server.process.fresh()
        assert page.sum("gunicorn_websocket_connections") == page.sum("gunicorn_websocket_connections_total") == 1
        assert page.sum("gunicorn_worker_requests_in_progress") == 0
        assert page.sum("gunicorn_worker_oldest_request_seconds") == 0
        busy = page.sum("gunicorn_worker_busy_seconds_total")
        time.sleep(0.2)
        assert server.process.fresh(page).sum("gunicorn_worker_busy_seconds_total") - busy < 0.1
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.socket.recv(1024) == b""
    wait_until(lambda: server.process.fresh().sum("gunicorn_websocket_connections") == 0)


def hijack_that_is_reset(server: Server) -> None:
    with server.open(Request("/websocket", headers=UPGRADE)) as connection:
        assert connection.socket.recv(1024).startswith(b"HTTP/1.1 101")
        connection.reset()
    wait_until(lambda: server.process.fresh().sum("gunicorn_websocket_connections") == 0)


def hijack_behind_which_a_view_answers(server: Server) -> None:
    with server.open(Request("/websocket/answers", headers=UPGRADE)) as connection:
        assert connection.socket.recv(1024).startswith(b"HTTP/1.1 101")
        connection.socket.shutdown(socket.SHUT_WR)
        assert b"200 OK" in connection.socket.recv(1024)
    wait_until(lambda: server.process.fresh().sum("gunicorn_websocket_connections") == 0)


def stop_iteration_instead_of_a_websocket(server: Server) -> None:
    with server.open(Request("/fail/StopIteration", headers=UPGRADE)) as connection:
        assert connection.socket.recv(1024) == b""


def os_error_instead_of_a_websocket(server: Server) -> None:
    with server.open(Request("/fail/BrokenPipeError", headers=UPGRADE)) as connection:
        assert connection.socket.recv(1024) == b""


def forked_child(server: Server) -> None:
    server.status("/fork")


def killed_in_the_view(server: Server) -> None:
    with server.held("/gate/never"):
        server.kill()


def killed_in_a_stream(server: Server) -> None:
    with server.open(Request("/drip/60")) as connection:
        assert connection.socket.recv(65_536)
        server.kill()


def killed_in_a_websocket(server: Server) -> None:
    with server.open(Request("/websocket", headers=UPGRADE)) as connection:
        assert connection.socket.recv(1024).startswith(b"HTTP/1.1 101")
        server.kill()


def killed_before_a_stream(server: Server) -> None:
    with server.held("/dam/dam"):
        server.kill()


def killed_in_close(server: Server) -> None:
    with server.held("/close/closing") as connection:
        assert connection.read_response().text == "ok"
        server.kill()


def timed_out(server: Server) -> None:
    with server.held("/stuck/stuck") as connection:
        connection.socket.settimeout(TIMEOUT + 10)
        with suppress(ConnectionError):
            while connection.socket.recv(1 << 16):
                pass


def reloaded(server: Server) -> None:
    with server.held("/gate/reload") as connection:
        server.process.send_signal(signal.SIGHUP)
        if server.kind not in GREEN:
            # Such a worker waits for its request, however long it takes.
            time.sleep(GRACEFUL + 1)
            server.go("reload")
        with suppress(ConnectionError):
            connection.read_response()


def reloaded_in_a_stream(server: Server) -> None:
    with server.open(Request("/drip/10" if server.kind in GREEN else "/drip/2.5")) as connection:
        assert connection.socket.recv(65_536)
        server.process.send_signal(signal.SIGHUP)
        with suppress(ConnectionError):
            while connection.socket.recv(65_536):
                pass


SYNC, GTHREAD, GEVENT, EVENTLET = "sync", "gthread", "gevent", "eventlet"
GREEN = (GEVENT, EVENTLET)
Expected = Callable[[str], set[str]]


@dataclass(frozen=True)
class Way:
    """A way in which a request can end, and what the books say of it then, by worker type."""

    act: Callable[[Server], None]
    expected: Expected


def same(*words: str) -> Expected:
    return lambda _: set(words)


def answers_exit(kind: str) -> bool:
    return kind in {SYNC, EVENTLET}


#: What happens to the request is in all types the same but where Gunicorn's classes differ.
WAYS = [
    Way(answered, same("answered 200")),
    Way(view_exception, same("answered 500", "failed ValueError")),
    Way(stop_iteration, same("unanswered stop_iteration", "failed StopIteration")),
    Way(stop_iteration_in_the_body, same("unanswered stop_iteration", "failed StopIteration")),
    Way(os_error, same("unanswered os_error", "failed BrokenPipeError")),
    Way(os_error_behind_a_status, same("unanswered os_error", "failed BrokenPipeError")),
    Way(client_leaves_before_the_answer, same("answered 200")),
    Way(client_leaves_before_a_failure, same("answered 500", "failed ValueError")),
    Way(client_leaves_an_upload, same("answered 200", "left request")),
    Way(client_leaves_a_chunked_upload, same("unanswered client_left", "left request")),
    Way(client_leaves_a_stream, same("answered 200", "left response")),
    Way(hijack, same("websocket accepted")),
    Way(hijack_that_is_reset, same("websocket accepted")),
    Way(hijack_behind_which_a_view_answers, same("websocket accepted")),
    Way(stop_iteration_instead_of_a_websocket, same("unanswered stop_iteration", "failed StopIteration")),
    Way(os_error_instead_of_a_websocket, same("unanswered os_error", "failed BrokenPipeError")),
    Way(forked_child, same("answered 200")),
    *(
        Way(act, lambda kind: {"failed SystemExit", "answered 500" if answers_exit(kind) else "unanswered system_exit"})
        for act in (system_exit, system_exit_in_the_body)
    ),
    Way(killed_in_the_view, same("lost killed")),
    Way(killed_in_a_stream, same("answered 200")),
    Way(killed_in_a_websocket, same("websocket accepted")),
    Way(killed_before_a_stream, same("lost killed")),
    Way(killed_in_close, same("answered 200")),
    Way(
        timed_out,
        lambda kind: {"answered 500", "failed SystemExit"} if kind in {SYNC, EVENTLET} else {"lost timeout"},
    ),
    Way(reloaded, lambda kind: {"lost graceful_timeout"} if kind in GREEN else {"answered 200"}),
    Way(
        reloaded_in_a_stream,
        lambda kind: {"answered 200", "failed GreenletExit"} if kind == GEVENT else {"answered 200"},
    ),
]


def test_each_request_ends_in_one_book(worker_type: str) -> None:
    options = ("--timeout", str(TIMEOUT), "--graceful-timeout", str(GRACEFUL), "--stack-dump-at", "0")
    threads = ("--threads", "4") if worker_type == GTHREAD else ()
    with Sandbox() as sandbox:
        store = sandbox.directory / "store"
        options = ("--metrics-dir", str(store), *options, *threads)
        process = PromgunProcess("-k", worker_type, *options, app="ways:app", sandbox=sandbox, workers=1)
        with process:
            server = Server(process, sandbox, worker_type)
            for way in WAYS:
                name = way.act.__name__
                before = read(process.fresh(), BOOKS), read(process.scrape(), WORDS)
                cut = process.log.count(CUT)
                way.act(server)
                books, words = settled(server, name)
                found = set(books - before[0]) | set(words - before[1]) - MAYBE.get(name, set())
                assert found == way.expected(worker_type), f"{name}: {found}\n{process.log[-3000:]}"
                if name.startswith("reloaded") and worker_type in GREEN:
                    assert process.log.count(CUT) == cut + 1, f"{name}: {process.log[-3000:]}"
            exits = process.fresh().by("cause", "gunicorn_worker_exits_total")
            assert "parent_lost" not in exits, exits
            with server.held("/gate/last"):
                assert process.stop() == 0
        page = process.dump("--dir", str(store))
        after = read(page, BOOKS)
        assert after - books == Counter({"lost graceful_timeout": 1})
        assert after.total() == server.sent


#: Whether the client's leaving is noticed depends on when it is.
MAYBE = {
    "client_leaves_before_the_answer": {"left response"},
    # The child's 500 goes out on the same connection, as under plain Gunicorn.
    "forked_child": {"left response"},
}


def settled(server: Server, name: str) -> tuple[Counter[str], Counter[str]]:
    """Wait until a worker serves and nothing runs; the books must hold each request that was sent, once."""
    process = server.process

    def quiet() -> Page | None:
        page = process.scrape()
        booted = page.by("state", "gunicorn_workers") == {"target": 1, "alive": 1, "booted": 1}
        idle = page.sum("gunicorn_worker_requests_in_progress") == 0
        return page if booted and idle and read(page, BOOKS).total() >= server.sent else None

    page = wait_until(
        quiet,
        message=lambda: f"{name}: {server.sent} were sent: {read(process.scrape(), BOOKS)}\n{process.log[-3000:]}",
    )
    page = process.fresh(page)
    books = read(page, BOOKS)
    assert books.total() == server.sent, f"{name}: {server.sent} were sent: {books}"
    assert page.sum("gunicorn_worker_requests_total") == page.sum("gunicorn_requests_total"), name
    return books, read(page, WORDS)


@pytest.mark.parametrize("green", GREEN)
def test_requests_cut_by_max_requests_are_lost(green: str) -> None:
    options = ("--max-requests", "2", "--graceful-timeout", "1", "--workers", "1")
    with Sandbox() as sandbox, PromgunProcess("-k", green, *options, app="ways:app", sandbox=sandbox) as process:
        server = Server(process, sandbox)
        with server.held("/gate/recycled") as connection:
            assert server.status("/ok") == 200
            with suppress(ConnectionError):
                connection.read_response()
        books, _ = settled(server, "max_requests")
        assert books == Counter({"answered 200": 1, "lost graceful_timeout": 1})


@pytest.mark.parametrize("green", GREEN)
def test_all_requests_of_a_killed_worker_are_lost(green: str) -> None:
    """The scoreboard describes 64 of them, and counts the others; those that were answered are not lost."""
    with Sandbox() as sandbox, PromgunProcess("-k", green, app="ways:app", sandbox=sandbox, workers=1) as process:
        server = Server(process, sandbox)
        connections = [server.open(Request(f"/gate/{number}")) for number in range(110)]
        process.expect("gunicorn_worker_requests_in_progress", 110)
        connections += [server.open(Request(f"/close/{number}")) for number in range(10)]
        process.expect("gunicorn_requests_total", 10)
        server.kill()
        books, _ = settled(server, "120")
        assert books == Counter({"lost killed": 110, "answered 200": 10})
        assert process.scrape().by("route", BOOKS["lost"][1])["_OVERFLOW"] == 46
        for connection in connections:
            connection.close()


def test_a_class_that_never_calls_close() -> None:
    """As gevent-websocket's, which Flask-SocketIO's users run."""
    options = ("-k", "never_closes.NeverClosingWorker", "--worker-connections", "20")
    with Sandbox() as sandbox, PromgunProcess(*options, app="never_closes:app", sandbox=sandbox, workers=1) as process:
        assert process.scrape().sum("gunicorn_worker_capacity") == 20
        server = Server(process, sandbox)
        assert server.status("/") == 200
        with server.open(Request("/", headers=UPGRADE)) as connection:
            assert connection.socket.recv(1024).startswith(b"HTTP/1.1 101")
        books, _ = settled(server, "websocket")
        assert books == Counter({"answered 200": 1, "websocket accepted": 1})


def test_what_is_refused_has_the_method_that_was_read(worker_type: str) -> None:
    with PromgunProcess("-k", worker_type, app="ways:app", workers=1) as process:
        expected = send(process.address, "PUT", "/echo", headers=[("Expect", "the-unexpected")])
        assert expected.status == 417
        process.expect("gunicorn_requests_total", 1, method="PUT", status="417")
