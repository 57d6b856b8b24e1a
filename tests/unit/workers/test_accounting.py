"""The five calls of a request's accounting, and the two functions that have them written out."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.body import LengthReader
from gunicorn.http.wsgi import FileWrapper

from promgun.metrics.instruments import Instruments
from promgun.store.board import Cell
from promgun.store.process import ProcessStore
from promgun.store.request_table import NOWHERE, Phase, read_running
from promgun.workers._accounting import RequestAccounting
from promgun.workers._asgi_follower import begin_request
from promgun.workers._instrumentation import follow_application, follow_requests
from promgun.workers._queue_time import TrustedPeers
from promgun.workers._responses import ResponseObserver

ENVIRON = {"REMOTE_ADDR": "192.0.2.1", "HTTP_X_REQUEST_ID": "é7"}


class Fixture:
    """An accounting with a clock that ticks a second a look, and what it recorded."""

    def __init__(self) -> None:
        store = ProcessStore()
        ticks = count(1_000_000_000, 1_000_000_000)
        self.instruments = Instruments(store, Config())
        self.board = store.board
        self.accounting = RequestAccounting(
            self.board, self.instruments, TrustedPeers(Config()), clock=lambda: next(ticks)
        )
        self.recorded: list[tuple[Any, ...]] = []
        self.accounting.record = lambda *answer: self.recorded.append(answer)

    def cells(self) -> list[int]:
        """Return all that the board says, less when it was occupied."""
        cells = list(self.board.cells)
        cells[Cell.CLAIMED] = cells[Cell.HEARTBEAT] = 0
        return cells


def request() -> Any:
    """Return what is used of a request of Gunicorn's."""
    body = SimpleNamespace(reader=LengthReader(None, 0))
    return SimpleNamespace(method="GET", path="/a", body=body, peer_addr=("192.0.2.1", 5))


class Response:
    """What is used of a response of Gunicorn's."""

    response_length: int | None = None

    def __init__(self, req: Any) -> None:
        self.req = req

    def start_response(self, *_: Any) -> None:
        """Accept a status."""


def by_calls(fixture: Fixture, region: int | None, look: Callable[[], None]) -> None:
    accounting, req = fixture.accounting, request()
    state = accounting.begin(req, region)
    accounting.application_called(req, state, ENVIRON, object())
    look()
    accounting.answered(req, state, 204, 3)
    accounting.closed(state)


def by_functions(fixture: Fixture, region: int | None, look: Callable[[], None]) -> None:
    accounting, req = fixture.accounting, request()
    responses = ResponseObserver(accounting, accounting.answered, accounting.raised)
    shape = SimpleNamespace(
        request_at=0, only_region=None, region_of_connection=region is not None, max_requests=2**63 - 1
    )
    response = Response(req)

    def application(_environ: Any, _start_response: Any) -> list[bytes]:
        look()
        return []

    called = follow_application(application, accounting)

    def handle(_req: Any, _conn: Any) -> None:
        called(ENVIRON, response.start_response)
        accounting.answered(req, req.promgun, 204, 3)

    follow_requests(handle, shape, accounting, responses)(req, SimpleNamespace(promgun=region))


@pytest.mark.parametrize("region", [None, 0, NOWHERE])
def test_what_is_written_out_does_what_the_calls_do(region: int | None) -> None:
    seen = []
    for drive in (by_calls, by_functions):
        fixture = Fixture()
        given = fixture.board.requests.free.pop() if region == 0 else region
        boards: list[list[int]] = []

        def look(fixture: Fixture = fixture, boards: list[list[int]] = boards) -> None:
            boards.append(fixture.cells())

        drive(fixture, given, look)
        seen.append((boards, fixture.recorded, len(fixture.board.requests.free)))
        # Nothing is left of it, by which a request after it would be miscounted.
        assert fixture.board.cells[Cell.BEYOND_TABLE] == fixture.board.cells[Cell.BEYOND_TABLE_ANSWERED] == 0
        assert region == 0 or not list(read_running(bytes(fixture.board.requests.cells)))
        assert fixture.recorded == [("GET", "", 204, 1.0, 0, 3)]
        assert fixture.board.view(0).in_progress == 0
        assert len(boards) == 1
    assert seen[0] == seen[1]


def asgi_by_calls(fixture: Fixture, path: str, headers: list[tuple[bytes, bytes]]) -> list[int]:
    accounting, req = fixture.accounting, SimpleNamespace(method="GET", path=path, peer_addr=("192.0.2.1", 5))
    environ = {"promgun.route": "/named", "REMOTE_ADDR": "192.0.2.1", "HTTP_X_REQUEST_ID": "r7" if headers else ""}
    state = accounting.begin(req)
    accounting.application_called(req, state, environ, object())
    cells = fixture.cells()
    accounting.answered(req, state, 200, 9)
    accounting.closed(state)
    return cells


def asgi_by_functions(fixture: Fixture, path: str, headers: list[tuple[bytes, bytes]]) -> list[int]:
    request = begin_request(
        fixture.accounting, "GET", path, ("192.0.2.1", 5), headers, scope={"promgun.route": "/named"}
    )
    cells = fixture.cells()
    request.sent = 9
    request.finish(200)
    request.finish(500)
    assert request.carrier is None
    return cells


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize(
    ("path", "headers"),
    [("/a", []), ("/é\udc80", []), ("/a", [(b"x-request-id", b"r7"), (b"x-request-start", b"t=5")])],
)
def test_a_request_of_asgi_is_written_out_as_the_calls_do(
    path: str, headers: list[tuple[bytes, bytes]], *, is_full: bool
) -> None:
    seen = []
    for drive in (asgi_by_calls, asgi_by_functions):
        fixture = Fixture()
        if is_full:
            fixture.board.requests.free.clear()
        running = drive(fixture, path, headers)
        assert fixture.recorded == [("GET", "/named", 200, 1.0, 0, 9)]
        assert fixture.board.view(0).in_progress == 0
        assert not list(read_running(bytes(fixture.board.requests.cells)))
        seen.append((running, list(fixture.board.requests.free)))
    assert seen[0] == seen[1]


def test_a_stream_of_asgi_has_a_time_to_its_first_byte() -> None:
    fixture = Fixture()
    streams: list[tuple[Any, ...]] = []
    fixture.accounting.record_stream = lambda *answer: streams.append(answer)
    request = begin_request(fixture.accounting, "GET", "/", None)
    request.head_sent(200)
    request.finish(200)
    assert streams == [("GET", "", 200, 2.0, 0, 0, 1.0)]
    assert not fixture.recorded


@pytest.mark.parametrize(("after", "expected"), [(2_000_000_000, "stream"), (90_000, "at once")])
def test_an_answer_that_goes_on_after_its_head_has_a_time_to_its_first_byte(after: int, expected: str) -> None:
    """Unless it ends within a tenth of a millisecond: then that is when it ended."""
    fixture = Fixture()
    accounting, req = fixture.accounting, request()
    streamed: list[tuple[Any, ...]] = []
    accounting.record_stream = lambda *answer: streamed.append(answer)
    state = accounting.begin(req)
    state.head = state.start + 1_000_000_000
    accounting.clock = lambda: state.head + after
    accounting.answered(req, state, 200, 5)
    seconds = 1 + after / 1_000_000_000
    assert streamed == ([("GET", "", 200, seconds, 0, 5, 1.0)] if expected == "stream" else [])
    assert fixture.recorded == ([("GET", "", 200, seconds, 0, 5)] if expected == "at once" else [])


BODIES: dict[str, tuple[Callable[[], Any], int | None, int]] = {
    "stream": (lambda: iter([b"x"]), None, 206),
    "long stream": (lambda: iter([b"x"]), 1 << 20, 206),
    "short stream": (lambda: iter([b"x"]), 10, 0),
    "file": (lambda: FileWrapper(io.BytesIO(b"x")), 10, 206),
    "generator": (lambda: (piece for piece in [b"x"]), 10, 206),
    "list": (lambda: [b"x"], None, 0),
    "empty list": (list, None, 0),
    "list of several": (lambda: [b"x", b"y"], None, 206),
    "list of a long one": (lambda: [b"x" * 70_000], None, 206),
    "long list": (lambda: [b"x"], 1 << 20, 206),
}


@pytest.mark.parametrize("is_counted", [False, True])
@pytest.mark.parametrize("body", BODIES)
def test_the_status_of_a_stream_is_on_the_board_when_its_head_goes_out(body: str, *, is_counted: bool) -> None:
    """But not once the request is counted: a kill afterwards would count it twice."""
    make, length, expected = BODIES[body]
    fixture = Fixture()
    accounting, req = fixture.accounting, request()
    response: Any = Response(req)
    response.status_code, response.response_length = 206, length
    seen: list[int] = []

    def send_headers() -> None:
        seen.extend(running.status for running in fixture.board.view(0).running())

    response.send_headers = send_headers
    state = accounting.begin(req)
    follow_application(lambda *_: make(), accounting)(ENVIRON, response.start_response)
    if is_counted:
        accounting.answered(req, state, 206, 0)
    response.send_headers()
    assert (state.head > 0) is (expected > 0 and not is_counted)
    assert seen == [0 if is_counted else expected]
    phase = Phase.CLOSING if is_counted else Phase.WRITING
    assert [running.phase for running in fixture.board.view(0).running()] == [phase]


def test_a_response_that_is_closed_twice_is_counted_once() -> None:
    class Closed(Response):
        status_code, sent, response_length = 200, 2, 2

        def close(self) -> None:
            """Close."""

    fixture = Fixture()
    accounting, req = fixture.accounting, request()
    ResponseObserver(accounting, accounting.answered, accounting.raised).measure(Closed)
    accounting.begin(req)
    response = Closed(req)
    response.close()
    response.close()
    assert fixture.recorded == [("GET", "", 200, 1.0, 0, 2)]


def test_a_request_counts_under_its_route_from_then_on() -> None:
    fixture = Fixture()
    accounting, req = fixture.accounting, request()
    state = accounting.begin(req)
    assert fixture.board.view(0).in_progress == 1
    accounting.application_called(req, state, ENVIRON, object())
    accounting.route_known(state, "/users/<int:id>")
    accounting.answered(req, state, 200, 0)
    accounting.closed(state)
    assert fixture.recorded == [("GET", "/users/<int:id>", 200, 1.0, 0, 0)]
    assert fixture.board.view(0).in_progress == 0


def test_a_busy_table_counts_without_a_region() -> None:
    fixture = Fixture()
    fixture.board.requests.free.clear()
    state = fixture.accounting.begin(request())
    assert (state.region, state.owns_region) == (NOWHERE, False)
    assert fixture.board.view(0).in_progress == 1
    fixture.accounting.closed(state)
    assert fixture.board.view(0).in_progress == 0
    assert not fixture.board.requests.free


@pytest.mark.parametrize("is_full", [False, True])
def test_a_failed_request_runs_until_handle_error_has_answered(*, is_full: bool) -> None:
    """A kill until then finds it on the board; it is counted before its answer goes out."""
    fixture = Fixture()
    accounting, req = fixture.accounting, request()
    responses = ResponseObserver(accounting, accounting.answered, accounting.raised, hands_on=True)
    shape = SimpleNamespace(request_at=0, only_region=None, region_of_connection=False, max_requests=2**63 - 1)
    if is_full:
        accounting.running.free.clear()
    free = len(accounting.running.free)
    error = ValueError()

    def handle(_req: Any, _conn: Any) -> None:
        raise error

    with pytest.raises(ValueError):
        follow_requests(handle, shape, accounting, responses)(req, SimpleNamespace())
    assert fixture.board.view(0).in_progress == 1
    seen: list[Any] = []

    class Socket:
        def sendall(self, _: bytes) -> None:
            """See what is counted by now; the client is gone."""
            seen.extend(fixture.recorded)
            raise ConnectionResetError

    def handle_error(_req: Any, client: Any, _addr: Any, _error: BaseException) -> None:
        assert fixture.recorded == []
        with suppress(OSError):
            client.sendall(b"HTTP/1.1 500 Internal Server Error\r\n\r\nbody")

    responses.error_answered(handle_error, req, Socket(), None, error)
    assert [answer[2] for answer in seen] == [500]
    assert fixture.recorded == seen
    assert fixture.board.view(0).in_progress == 0
    assert len(accounting.running.free) == free


@pytest.mark.parametrize("is_full", [False, True])
def test_an_answer_to_a_request_that_has_left_touches_no_other(*, is_full: bool) -> None:
    fixture = Fixture()
    accounting, req = fixture.accounting, request()
    responses = ResponseObserver(accounting, accounting.answered, accounting.raised)
    shape = SimpleNamespace(request_at=0, only_region=None, region_of_connection=False, max_requests=2**63 - 1)
    if is_full:
        accounting.running.free.clear()

    def handle(_req: Any, _conn: Any) -> None:
        raise ValueError

    with pytest.raises(ValueError):
        follow_requests(handle, shape, accounting, responses)(req, SimpleNamespace())
    other = accounting.begin(request(), None)
    accounting.application_called(request(), other, ENVIRON, object())
    before = fixture.cells()
    accounting.answered(req, req.promgun, 500, 0)
    assert fixture.cells() == before
    assert [answer[2] for answer in fixture.recorded] == [500]
    accounting.closed(other)


def test_a_response_that_the_accounting_was_not_told_of_is_found() -> None:
    """A thread may serve on after its worker has given the application back to the hooks."""
    fixture = Fixture()
    accounting, req = fixture.accounting, request()
    responses = ResponseObserver(accounting, accounting.answered, accounting.raised)
    shape = SimpleNamespace(request_at=0, only_region=None, region_of_connection=False, max_requests=2**63 - 1)

    class Sent:
        status, status_code, headers_sent, sent = "200 OK", 200, True, 5

        def __init__(self) -> None:
            self.req = req

        def close(self) -> None:
            """Never called."""

    def handle(_req: Any, _conn: Any) -> None:
        resp = Sent()
        try:
            raise ValueError  # noqa: TRY301 - what an application does
        except ValueError:
            # As Gunicorn ends a connection over a failure behind the head.
            assert resp.headers_sent
            raise StopIteration from None

    with pytest.raises(StopIteration):
        follow_requests(handle, shape, accounting, responses)(req, SimpleNamespace())
    assert [answer[2] for answer in fixture.recorded] == [200]
