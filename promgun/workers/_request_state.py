"""What a worker knows of a request while serving it, and how it is read from Gunicorn's objects."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from gunicorn.http.body import LengthReader
from gunicorn.http.errors import NoMoreData

from promgun.store.request_table import OVER, ROUTE_MARK, RunningRequests


class CountingReader:
    """Counts the bytes of a request body; ``cut`` tells that the client left before its end.

    Replaces ``Body.reader`` (gunicorn 25.3 to 27.0) where the request has a body.
    """

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.received = 0
        self.cut = False
        #: the exception that the application got from reading it, if any
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        """Read as the wrapped reader does."""
        expected = min(size, self._reader.length) if isinstance(self._reader, LengthReader) else 0
        try:
            data: bytes = self._reader.read(size)
        except (NoMoreData, OSError) as error:
            self.cut = True
            self.error = error
            raise
        self.received += len(data)
        if len(data) < expected:
            self.cut = True
        return data


class DeclaredBody(CountingReader):
    """A request body of which only the declared length is known (bytes); nothing is read through this object."""

    def __init__(self, length: int) -> None:
        super().__init__(None)
        self.received = length


#: The value of :attr:`RequestState.response` once the request is closed.
ANSWERED = object()


class RequestState:
    """The state of one request, attached to Gunicorn's request as ``req.promgun`` from *begin* to *closed*.

    ``start`` is nanoseconds of the monotonic clock, ``head`` those when the first byte was sent, 0 for an answer that
    is sent as it ends. ``cpu`` is of the thread's clock, 0 where that is not read; the CPU time of the request is
    counted ``stands_for`` times. ``has_more`` says that ``head``, ``cpu`` or ``body`` is set. ``region`` is the
    request's region in the table of running requests, ``NOWHERE`` if it is only counted there, ``OVER`` before *begin*
    and after *closed*; ``owns_region`` says that *begin* took it. ``response`` is Gunicorn's from *application_called*
    on, and ``ANSWERED`` after *closed*. ``answered_by_handler`` says that *closed* is left to ``handle_error``, which
    answers the request. ``handshake`` says of a request for a websocket whether the application sent the status 101 on
    the socket itself, ``None`` if that is not known; from then on ``response`` is ``None`` until it has ended.
    ``route`` is the route by which the request is counted, ``pattern_route`` what it is while the framework names none,
    ``carrier`` the ``environ`` in which the application may name another, until it is counted, ``table`` the table of
    running requests from *application_called* on, where routes are reported. ``recorded`` says that the request was
    counted as answered, unanswered, lost or websocket, ``error_type`` is the class name of the exception that left the
    application.
    """

    # Defaults are class attributes, so that nothing has to be called for a new request.
    start = 0
    head = 0
    cpu = 0
    stands_for = 1
    has_more = False
    region = OVER
    owns_region = False
    answered_by_handler = False
    body: CountingReader | None = None
    response: Any = None
    recorded = False
    client_left = False
    error_type = ""
    handshake: bool | None = None
    file_size = 0
    route = ""
    pattern_route = ""
    carrier: Any = None
    table: RunningRequests = None  # type: ignore[assignment] # set before a route can be reported

    def route_known(self, route: str) -> None:
        """Count the request under ``route``, as the framework writes it (``/users/<int:id>``), from now on."""
        if self.route or self.recorded or not route:
            self._route_again(route)
            return
        self.route = route
        region = self.region
        if region >= 0:
            # RunningRequests.show_route, written out: a call less.
            table = self.table
            try:
                write, start, data = table.places[route]
            except KeyError:
                write, start, data = table.place_route(route)
            write(table.cells, region * 8 + start, data, ROUTE_MARK)

    def _route_again(self, route: str) -> None:
        if self.recorded:
            # Reported by a thread or greenlet that outlives the request, whose region is another's by now.
            return
        route = route or self.pattern_route
        former = self.route
        if route == former:
            return
        self.route = route
        region, table = self.region, self.table
        if region >= 0:
            if former:
                table.forget_route(region, former)
            table.show_route(region, route)


class FollowedState(RequestState):
    """The state of a request that ``follow_request`` follows, which sets all that is in these slots.

    CPython 3.12 and newer take ten times as long for an attribute that shadows a default of the class.
    """

    __slots__ = ("carrier", "has_more", "recorded", "region", "response", "route", "start", "table")


def file_size(result: Any) -> int:
    """Return how many bytes Gunicorn would send of a file that the application returned, 0 for what has no descriptor.

    ``Response.sendfile`` (gunicorn 25.3 to 27.0) sends from the file's position to its end and counts nothing.
    """
    try:
        descriptor = result.filelike.fileno()
        return os.fstat(descriptor).st_size - os.lseek(descriptor, 0, os.SEEK_CUR)
    except Exception:  # noqa: BLE001 - the application's file object may raise anything; Gunicorn handles that
        return 0


def response_has_no_body(response: Any) -> bool:
    """Whether HTTP forbids a body here, whatever the application returned (RFC 9110, sections 6.4.1 and 9.3.2)."""
    status = response.status_code
    return response.req.method == "HEAD" or status in {204, 304} or (status is not None and status < 200)  # noqa: PLR2004 - 1xx


def response_in(environ: Any) -> Any:
    """Return the response that Gunicorn made for the followed request of this ``environ``, ``None`` if there is none.

    ``wsgi.create`` and ``handle_http2_request`` (gunicorn 25.3 to 27.0) put functions into it that refer to the
    response, which a middleware in front passes on even if it replaces ``start_response``.
    """
    for name in ("wsgi.early_hints", "gunicorn.http2.send_trailers"):
        for cell in getattr(environ.get(name), "__closure__", None) or ():
            response = cell.cell_contents
            if hasattr(response, "start_response") and hasattr(getattr(response, "req", None), "promgun"):
                return response
    return None


def response_behind(error: BaseException, req: Any) -> Any:
    """Return the response of a request whose ``handle_request`` an exception has left, ``None`` if there is none yet.

    It is the variable ``resp`` of the method (gunicorn 25.3 to 27.0).
    """
    entry = error.__traceback__
    while entry is not None:
        response = entry.tb_frame.f_locals.get("resp")
        if getattr(response, "req", None) is req:
            return response
        entry = entry.tb_next
    return None


def asks_for_websocket(req: Any) -> bool:
    """Whether a request of Gunicorn's asks for a websocket (RFC 6455, section 4.1)."""
    return any(name == "UPGRADE" and value.lower() == "websocket" for name, value in getattr(req, "headers", ()))


def method_read(error: BaseException) -> str:
    """Return the method of the request in which a parser found an error; empty when it was not read yet.

    Gunicorn's errors do not name the request (25.3 to 27.0): it is the ``self`` of a frame of the parser's.
    """
    entry = error.__traceback__
    while entry is not None:
        frame, entry = entry.tb_frame, entry.tb_next
        if str(frame.f_globals.get("__name__")).startswith("gunicorn.http."):
            method = getattr(frame.f_locals.get("self"), "method", None)
            if isinstance(method, str):
                return method
    return ""


class StatusTap:
    """A socket that calls ``answers`` with a status and the bytes of body, before the head and they are written to it.

    ``Worker.handle_error`` chooses the status and returns nothing (gunicorn 25.3 to 27.0), so it is read off what it
    sends. The call comes first, because a worker may be killed, and a client may have left, while it is sent.
    """

    def __init__(self, sock: Any, answers: Callable[[int, int], None]) -> None:
        self._sock = sock
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, data: bytes) -> None:
        """Tell the status if the data begins with a response head, then send."""
        fields = data.split(b" ", 2)
        # textwrap.dedent of CPython 3.14 takes the \r from the empty line of util.write_error (gunicorn 27.0).
        ends = [(data.find(end), len(end)) for end in (b"\n\r\n", b"\n\n") if end in data]
        if ends and data.startswith(b"HTTP/") and fields[1].isdigit():
            self._answers(int(fields[1]), len(data) - sum(min(ends)))
        self._sock.sendall(data)


def came_from_application(error: BaseException, state: RequestState) -> bool:
    """Whether an exception was raised by the application, not by Gunicorn while it wrote to the client.

    An ``OSError`` whose traceback passes through Gunicorn's response writer means that the client is gone.
    """
    if state.body is not None and error is state.body.error:
        return False
    if state.error_type:
        return True
    if not isinstance(error, OSError):
        return True
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") in _WRITERS:
            return False
        traceback = traceback.tb_next
    return True


def raised_by_gunicorn(error: BaseException) -> bool:
    """Whether a line of Gunicorn's own raised an exception, not what it called."""
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return entry is not None and str(entry.tb_frame.f_globals.get("__name__")).startswith("gunicorn.")


_WRITERS = frozenset({"gunicorn.http.wsgi", "gunicorn.http2.response", "gunicorn.http2.connection"})
