"""ASGI applications on both servers: what their clients got is what the page says."""

from __future__ import annotations

import inspect
import re
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.harness import Page, PromgunProcess, Sandbox, wait_until
from tests.support.http_client import Connection, NoAnswer, Request, load, send

ASGI, UVICORN = "asgi", "uvicorn"
#: Gunicorn's server; uvicorn's on httptools and websockets; a user's class on h11 and wsproto.
WORKER_TYPES = (ASGI, UVICORN, "own_uvicorn.H11Worker")


class Server(PromgunProcess):
    """A server under the tests of this module, which ask what each of them has added to the counters."""

    kind = ""

    def added(self, act: Callable[[], None], *names: str, number: float = 0) -> dict[str, float]:
        """Return what ``act`` adds to the samples of the families ``names``, by labels, once nothing is running.

        ``number`` is how much is added at least, which the server may take a moment to notice.
        """
        before = self.counts(self.fresh(), names)
        all_before = sum(before.values())
        act()
        wait_until(lambda: sum(self.counts(self.scrape(), names).values()) >= all_before + number)
        wait_until(lambda: self.scrape().sum("gunicorn_worker_requests_in_progress") == 0)
        after = self.counts(self.fresh(), names)
        return {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}

    @staticmethod
    def counts(page: Page, names: tuple[str, ...]) -> dict[str, float]:
        """Return the values of all samples of these names, under a key made of their labels."""
        found = {}
        for name in names:
            for sample in page.select(f"gunicorn_{name}"):
                labels = " ".join(sample.labels.values())
                found[labels if len(names) == 1 else f"{name} {labels}"] = sample.value
        return found


@pytest.fixture(scope="module", params=WORKER_TYPES)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    options = ("--worker-type", request.param, "--graceful-timeout", "2")
    with Server(*options, app="asgi_app:app", workers=1) as running:
        running.kind = request.param
        yield running


def raw(server: PromgunProcess, data: bytes, wait: float = 10.0) -> bytes:
    """Send bytes; return what came until the server closed the connection or fell silent."""
    assert isinstance(server.address, tuple)
    received = b""
    with socket.create_connection(server.address, timeout=wait) as sock:
        sock.sendall(data)
        try:
            while piece := sock.recv(1 << 16):
                received += piece
        except (TimeoutError, ConnectionError):
            pass
    return received


def leave(server: PromgunProcess, head: bytes, until: bytes = b"") -> None:
    """Send a request and close the connection once it is served, or after a part of the answer."""
    assert isinstance(server.address, tuple)
    with socket.create_connection(server.address, timeout=10) as sock:
        sock.sendall(head)
        received = b""
        while until not in received:
            received += sock.recv(1 << 16)
        wait_until(lambda: server.scrape().sum("gunicorn_worker_requests_in_progress") == 1)
    wait_until(lambda: server.scrape().sum("gunicorn_worker_requests_in_progress") == 0)


def test_answers_are_counted_by_method_route_and_status(server: Server) -> None:
    def act() -> None:
        with Connection(server.address) as connection:
            for _ in range(10):
                for method, status, body in (("GET", 200, b""), ("POST", 201, b"q" * 10), ("PUT", 202, b"q" * 300)):
                    asked = Request(f"/status/{status}", method, body=body)
                    answer = connection.request(asked, keepalive=True)
                    assert (answer.status, len(answer.body)) == (status, len(body))
        assert send(server.address, path="/status/204", method="HEAD").status == 204
        assert send(server.address, path="/nowhere").status == 404
        assert send(server.address, path="/status/599").status == 599

    added = server.added(act, "requests_total", "request_size_bytes_sum", "response_size_bytes_sum")
    assert added == {
        "requests_total GET /status/{status} 200": 10,
        "requests_total POST /status/{status} 201": 10,
        "requests_total PUT /status/{status} 202": 10,
        "requests_total HEAD /status/{status} 204": 1,
        "requests_total GET  404": 1,
        "requests_total GET /status/{status} 5xx": 1,
        "request_size_bytes_sum POST /status/{status}": 100,
        "request_size_bytes_sum PUT /status/{status}": 3000,
        "response_size_bytes_sum POST /status/{status}": 100,
        "response_size_bytes_sum PUT /status/{status}": 3000,
        "response_size_bytes_sum GET ": 9,
    }


def test_a_background_task_is_no_part_of_its_request(server: Server) -> None:
    def act() -> None:
        with Connection(server.address) as connection:
            assert connection.request(Request("/task"), keepalive=True).status == 200
            # The task runs, and the connection serves on.
            assert connection.request(Request("/pid"), keepalive=True).status == 200

    added = server.added(act, "requests_total", "request_duration_seconds_sum", "failed_requests_total")
    assert added.pop("request_duration_seconds_sum GET /task 200") < 1.5
    added.pop("request_duration_seconds_sum GET /pid 200")
    assert added == {"requests_total GET /task 200": 1, "requests_total GET /pid 200": 1}


def test_the_first_byte_of_a_stream_is_earlier_than_its_end(server: Server) -> None:
    def act() -> None:
        assert send(server.address, path="/raw/paused").text == "ok"
        assert send(server.address, path="/pid").status == 200

    added = server.added(
        act, "response_start_seconds_sum", "response_start_seconds_count", "request_duration_seconds_sum"
    )
    assert added["request_duration_seconds_sum GET /raw 200"] >= 0.3
    assert added["response_start_seconds_sum GET /raw"] < 0.25
    assert added["response_start_seconds_count GET /raw"] == added["response_start_seconds_count GET /pid"] == 1


def test_who_blocks_the_loop_is_seen_while_it_does(server: Server) -> None:
    late = server.fresh().sum("gunicorn_worker_loop_late_seconds_total")
    with ThreadPoolExecutor(1) as pool, Connection(server.address) as waiting:
        waiting.socket.sendall(Request("/nap").encode("1.1", keepalive=False))
        wait_until(lambda: server.scrape().sum("gunicorn_worker_requests_in_progress") == 1)
        blocking = pool.submit(send, server.address, path="/block")
        wait_until(lambda: server.scrape().sum("gunicorn_worker_loop_lag_seconds") > 1)
        assert not blocking.done()
        assert blocking.result().status == 200
        assert waiting.read_response().status == 200
    wait_until(lambda: server.scrape().sum("gunicorn_worker_loop_late_seconds_total") - late > 2.3)
    assert server.scrape().sum("gunicorn_worker_loop_late_seconds_total") - late < 4
    assert server.scrape().sum("gunicorn_worker_loop_lag_seconds") > 2.3
    assert server.log.count("has blocked its event loop") == 1
    assert len(re.findall(r'asgi_app\.py", line \d+ in block', server.log)) == 1
    # The task of the other request, with what it awaits.
    assert re.search(r'asgi_app\.py", line \d+, in nap\n +await asyncio.sleep\(4\)\n.*, in sleep\n', server.log)


def test_an_exception_is_counted_beside_the_status_that_the_client_got(server: Server) -> None:
    before = len(server.log)

    def act() -> None:
        assert send(server.address, path="/fails").status == 500
        assert send(server.address, path="/handles").status == 418
        assert send(server.address, path="/raw/silent").status == 500
        with pytest.raises(NoAnswer):
            send(server.address, path="/breaks")

    added = server.added(act, "requests_total", "failed_requests_total")
    assert added == {
        "requests_total GET /fails 500": 1,
        "requests_total GET /handles 418": 1,
        "requests_total GET /raw 500": 1,
        "requests_total GET /breaks 200": 1,
        "failed_requests_total RuntimeError GET /fails": 1,
        "failed_requests_total ValueError GET /breaks": 1,
    }
    assert "promgun/workers" not in server.log[before:], "promgun's frames are hidden in tracebacks"


def test_no_status_is_counted_where_no_byte_was_sent(server: Server) -> None:
    """Uvicorn writes the head at once; Gunicorn waits for the first bytes of the body, and checks headers before."""
    got: list[bytes] = []

    def act() -> None:
        got.extend(
            raw(server, b"GET /raw/%s HTTP/1.1\r\nHost: x\r\n\r\n" % name)[:12] for name in (b"bad-header", b"started")
        )

    added = server.added(act, "requests_total", "requests_unanswered_total")
    if server.kind == ASGI:
        assert got == [b"HTTP/1.1 500", b""]
        assert added == {"requests_total GET /raw 500": 1, "requests_unanswered_total other /raw": 1}
    else:
        assert got == [b"", b"HTTP/1.1 200"]
        assert added == {"requests_total GET /raw 200": 1, "requests_unanswered_total other /raw": 1}


def test_a_second_start_of_an_answer_changes_nothing(server: Server) -> None:
    got: list[bytes] = []
    added = server.added(
        lambda: got.append(raw(server, b"GET /again/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")),
        "requests_total",
    )
    assert got[0].startswith(b"HTTP/1.1 200 ")
    assert added == {"GET /again 200": 1}


@pytest.mark.parametrize("length", [b"long", b"brief"])
def test_bytes_of_another_number_than_the_declared_one_are_counted_as_sent(server: Server, length: bytes) -> None:
    """Those beyond it are not sent by all servers; those of a body that is too short are."""
    got: list[bytes] = []
    added = server.added(
        lambda: got.append(raw(server, b"GET /raw/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % length)),
        "response_size_bytes_sum",
    )
    assert added.get("GET /raw", 0) == len(got[0].partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        pytest.param(b"NONSENSE\r\n\r\n", {"_OTHER  400": 1}, id="line"),
        pytest.param(
            b"POST /status/200 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
            {"400": 1},
            id="a chunk that comes with its head",
        ),
    ],
)
def test_what_the_server_answers_itself_is_counted_once(
    server: Server, data: bytes, statuses: dict[str, float]
) -> None:
    got: list[bytes] = []
    added = server.added(lambda: got.append(raw(server, data)), "requests_total")
    assert got[0].startswith(b"HTTP/1.1 400")
    assert {key[-len(wanted) :]: value for key, value in added.items() for wanted in statuses} == statuses
    assert sum(added.values()) == 1


def test_a_bad_chunk_is_the_answer_of_the_request_that_reads_it(server: Server) -> None:
    got: list[bytes] = []

    def act() -> None:
        assert isinstance(server.address, tuple)
        head = b"POST /status/200 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        with socket.create_connection(server.address, timeout=10) as sock:
            sock.sendall(head)
            server.expect("gunicorn_worker_requests_in_progress", 1)
            sock.sendall(b"ZZ\r\n")
            got.append(sock.recv(1 << 16)[:12])

    added = server.added(act, "requests_total", "failed_requests_total", "requests_unanswered_total")
    assert got == [b"HTTP/1.1 400"]
    assert added == {"requests_total POST /status/{status} 400": 1}


def test_what_the_loop_logs_has_no_frames_of_promgun(server: Server) -> None:
    """On h11 uvicorn fails to answer a bad chunk that comes after the answer (0.30 to 0.54)."""
    assert isinstance(server.address, tuple)
    logged = len(server.log)
    with socket.create_connection(server.address, timeout=10) as sock:
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        sock.recv(1 << 16)
        sock.sendall(b"zz\r\n")
        with suppress(ConnectionError):
            while sock.recv(1 << 16):
                pass
    if server.kind not in {ASGI, UVICORN}:
        wait_until(lambda: "LocalProtocolError" in server.log[logged:])
    assert "promgun/workers" not in server.log[logged:]


def test_pipelined_requests_are_each_counted(server: Server) -> None:
    line = b"GET /status/200 HTTP/1.1\r\nHost: x\r\n"
    got: list[int] = []

    def act() -> None:
        received = raw(server, (line + b"\r\n") * 4 + line + b"Connection: close\r\n\r\n")
        got.append(received.count(b"HTTP/1.1 200"))

    assert server.added(act, "requests_total") == {"GET /status/{status} 200": 5}
    assert got == [5]


def test_an_application_waits_for_a_client_that_does_not_read(server: Server) -> None:
    ends = []

    def act() -> None:
        with Connection(server.address) as connection:
            connection.socket.sendall(Request("/mebibytes/").encode("1.1", keepalive=False))
            wait_until(lambda: server.scrape().sum("gunicorn_worker_requests_in_progress") == 1)
            # The loop comes to it once the application waits.
            assert send(server.address, path="/pid").status == 200
            ends.append(connection.read_response().body.rpartition(b" ")[2])

    assert server.added(act, "requests_total") == {"GET /mebibytes 200": 1, "GET /pid 200": 1}
    assert 0 < int(ends[0]) < 60


def test_clients_that_leave(server: Server) -> None:
    def act() -> None:
        leave(server, b"GET /raw/left HTTP/1.1\r\nHost: x\r\n\r\n")
        leave(server, b"POST /status/200 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        leave(server, b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n", until=b"data: 3")

    names = "requests_total", "client_disconnects_total", "failed_requests_total", "requests_unanswered_total"
    added = server.added(act, *names, number=6)
    assert added == {
        # the status that the application gave, though nobody heard it
        "requests_total GET /raw 200": 1,
        "requests_total GET /events/{topic} 200": 1,
        "requests_unanswered_total client_left /status/{status}": 1,
        "client_disconnects_total request": 1,
        "client_disconnects_total response": 2,
    }


def test_the_error_that_is_given_to_a_client_that_left_its_upload_is_none(server: Server) -> None:
    def act() -> None:
        leave(server, b"POST /gives-up/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")

    added = server.added(act, "requests_total", "client_disconnects_total", "requests_unanswered_total", number=2)
    assert added == {
        "requests_unanswered_total client_left /gives-up": 1,
        "client_disconnects_total request": 1,
    }


def test_a_client_that_leaves_in_the_same_round_of_the_loop_as_it_is_answered(server: Server) -> None:
    """Its end has come when the server writes, which is told of it a moment later."""

    def act() -> None:
        assert isinstance(server.address, tuple)
        with socket.create_connection(server.address, timeout=10) as blocker:
            blocker.sendall(b"GET /gate/open HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: server.scrape().sum("gunicorn_worker_requests_in_progress") == 1)
            for _ in range(10):
                with socket.create_connection(server.address, timeout=10) as sock:
                    sock.sendall(b"GET /yields HTTP/1.1\r\nHost: x\r\n\r\n")
            server.sandbox.write("open", "")
            blocker.recv(100)

    added = server.added(act, "requests_total", "client_disconnects_total", number=21)
    assert added == {
        "requests_total GET /gate/{name} 200": 1,
        "requests_total GET /yields 200": 10,
        "client_disconnects_total response": 10,
    }


def open_websocket(server: PromgunProcess, path: str) -> ClientConnection:
    assert isinstance(server.address, tuple)
    # Later versions than 13 want to be told that this is no context manager.
    options: dict[str, Any] = {"legacy": True} if "legacy" in inspect.signature(connect).parameters else {}
    url = f"ws://{server.address[0]}:{server.address[1]}{path}"
    opened: ClientConnection = connect(url, compression=None, **options)
    return opened


def talk(server: PromgunProcess, path: str, *texts: str, code: int | None = 1000) -> int:
    """Send texts, each answered; return the status of a refused handshake, or the code by which the connection ended.

    ``code`` is the one to close with, ``None`` to break the connection off.
    """
    try:
        websocket = open_websocket(server, path)
    except InvalidStatus as refused:
        return refused.response.status_code
    try:
        for text in texts:
            websocket.send(text)
            assert websocket.recv(10) == text
        if code is None:
            websocket.socket.close()
            return 1006
        websocket.close(code)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006
    return code


def test_websockets_have_a_book_of_their_own(server: Server) -> None:
    if server.kind.startswith("own") and version("uvicorn").startswith("0.30."):
        pytest.skip("uvicorn 0.30 closes the connection without an answer on wsproto when the application raises")
    raised_code = 1011 if server.kind == ASGI else 1006

    def act() -> None:
        assert talk(server, "/echo/1", "a", "b") == 1000
        assert talk(server, "/echo/2", "a", code=3001) == 3001
        assert talk(server, "/echo/3", "bye") == 4000
        assert talk(server, "/echo/4", "boom") == raised_code
        assert talk(server, "/echo/5", "a", code=None) == 1006
        assert [talk(server, path) for path in ("/refuse", "/boom", "/nowhere")] == [403, 500, 403]
        wait_until(lambda: server.scrape().sum("gunicorn_websocket_connections") == 0)

    connections = "websocket_connections_total"
    added = server.added(act, "requests_total", connections, "websocket_messages_total", "websocket_closes_total")
    closes = {key: added.pop(f"websocket_closes_total {key}") for key in ("1000", "3xxx", "4xxx", "1006")}
    assert closes == {"1000": 1, "3xxx": 1, "4xxx": 1, "1006": 1 if server.kind == ASGI else 2}
    assert added.pop("websocket_closes_total 1011", 0) == (1 if server.kind == ASGI else 0)
    assert added == {
        "requests_total GET /refuse 403": 1,
        "requests_total GET /boom 500": 1,
        "requests_total GET  403": 1,
        f"{connections} accepted /echo/{{room}}": 5,
        f"{connections} refused /refuse": 1,
        f"{connections} failed /boom": 1,
        f"{connections} refused ": 1,
        "websocket_messages_total received": 6,
        "websocket_messages_total sent": 4,
    }


def test_an_open_websocket_is_no_request_in_progress(server: Server) -> None:
    with open_websocket(server, "/echo/1") as websocket:
        websocket.send("a")
        assert websocket.recv(10) == "a"
        page = server.fresh()
        assert page.sum("gunicorn_websocket_connections") == 1
        assert page.sum("gunicorn_worker_requests_in_progress") == 0
        assert page.sum("gunicorn_worker_oldest_request_seconds") == 0
        assert page.sum("gunicorn_worker_state", state="idle") == 1


@pytest.mark.parametrize("kind", [ASGI, UVICORN])
def test_the_life_of_a_worker(kind: str) -> None:
    """Killed while requests run; reloaded while one does, which Gunicorn's worker cuts off and uvicorn's waits for."""
    with PromgunProcess("--worker-type", kind, "--graceful-timeout", "2", app="asgi_app:app", workers=1) as server:
        assert server.fresh().sum("gunicorn_worker_boot_seconds_count") == 1
        connections = [Connection(server.address) for _ in range(3)]
        for number, connection in enumerate(connections):
            connection.socket.sendall(b"GET /wait/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        server.expect("gunicorn_worker_requests_in_progress", 3)
        (first,) = server.workers()
        server.send_signal(signal.SIGKILL, first)
        server.expect("gunicorn_requests_lost_total", 3, cause="killed", route="/wait/{n}")
        server.expect("gunicorn_worker_exits_total", 1, cause="killed")
        assert server.log.count(f"Worker (pid:{first}) ended (killed) while serving: GET /wait/") == 3
        for connection in connections:
            connection.close()
        wait_until(lambda: send(server.address, path="/pid").status == 200)
        with Connection(server.address) as waiting, open_websocket(server, "/echo/1"):
            path = b"/wait/9" if kind == ASGI else b"/events/a"
            waiting.socket.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            server.expect("gunicorn_worker_requests_in_progress", 1)
            server.send_signal(signal.SIGHUP)
            if kind == ASGI:
                server.expect("gunicorn_requests_lost_total", 1, cause="graceful_timeout", route="/wait/{n}")
                page = server.fresh()
                # Which of its tasks Gunicorn cancels first decides whether a close frame (1011) is sent.
                assert page.sum("gunicorn_websocket_closes_total") == 1
            else:
                server.expect("gunicorn_websocket_closes_total", 1, code="1012")
        server.expect("gunicorn_worker_exits_total", 1, cause="reload")
        page = server.fresh()
        assert page.sum("gunicorn_worker_exits_total") == 2
        assert page.sum("gunicorn_requests_lost_total") == (4 if kind == ASGI else 3)
        assert page.sum("gunicorn_requests_total") == (1 if kind == ASGI else 2)
        assert server.stop() == 0


@pytest.mark.parametrize("kind", WORKER_TYPES)
@pytest.mark.parametrize("keepalive", [True, False])
def test_the_requests_that_a_worker_has_left_are_counted_down(kind: str, *, keepalive: bool) -> None:
    options = ("--worker-type", kind, "--max-requests", "20")
    with PromgunProcess(*options, app="asgi_app:app", workers=1) as server:
        server.expect("gunicorn_worker_requests_left", 20)
        load(server.address, [Request("/status/200")] * 7, keepalive=keepalive)
        server.expect("gunicorn_worker_requests_left", 13)
        assert server.stop() == 0


IN_DOUBT = """
import functools

async def answer(name, scope, receive, send):
    assert scope["type"] == "http", scope["type"]
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})

def wsgi(name, environ, start_response):
    start_response("204 No Content", [])
    return []

asgi_app = functools.partial(answer, "")
wsgi_app = functools.partial(wsgi, "")
"""


@pytest.mark.parametrize(
    ("kind", "other", "own"),
    [("gthread", "asgi_app", "wsgi_app"), (ASGI, "wsgi_app", "asgi_app"), (UVICORN, "wsgi_app", "")],
)
def test_the_first_request_that_fails_for_its_kind_is_told_of(kind: str, other: str, own: str) -> None:
    with Sandbox() as sandbox:
        sandbox.write("doubt.py", IN_DOUBT)
        with PromgunProcess("-k", kind, app=f"doubt:{other}", sandbox=sandbox, workers=1) as process:
            assert [send(process.address).status for _ in range(2)] == [500, 500]
            said = (
                f"doubt:{other} seems to be a{'n ASGI' if other == 'asgi_app' else ' WSGI'} application, which worker"
            )
            wait_until(lambda: said in process.log)
            process.expect("gunicorn_requests_total", 2, status="500")
            assert process.log.count(said) == 1
        if own:
            with PromgunProcess("-k", kind, app=f"doubt:{own}", sandbox=sandbox, workers=1) as process:
                assert send(process.address).status == 204
                assert "seems to be" not in process.log
