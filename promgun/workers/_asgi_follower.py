"""Follows one HTTP request of an ASGI server: what is sent of its answer, and how its application ends.

The server's adapter makes the calls, in this order: :func:`begin_request` when the request's cycle begins,
``head_sent`` when its status line is written, ``finish`` when the last byte is, ``application_ended`` when the
application returns or raises, ``over`` when the server has nothing more to do for it. A server answers some requests
itself: those calls are the same. After the last byte the request is over, whatever the application does then: a
background task is not part of it.

The application of a client that has left does not notice: ``send`` does nothing. Such a request is counted under the
status that the application gives, or as unanswered when it gives none.

``begin_request`` and ``finish`` repeat the bodies of ``RequestAccounting.begin``, ``describe_request``, ``answered``
and ``closed``, and a test checks that both do the same: most requests pass these two and nothing else here.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from promgun.metrics.label_values import DisconnectPhase, UnansweredReason
from promgun.routes.sources import REPORT, ROUTE
from promgun.store.board import Cell
from promgun.store.request_table import BUSY, NOWHERE, OVER, PHASE, START, STATUS_SHIFT, Phase, describe
from promgun.workers._accounting import AT_ONCE, RequestAccounting
from promgun.workers._loop_lag import LoopAccounting
from promgun.workers._request_state import RequestState
from promgun.workers._tracebacks import hide_own_frames

_SECOND = 1_000_000_000
_APPLICATION = int(Phase.APPLICATION)
_WRITING = int(Phase.WRITING)
_CLOSING = int(Phase.CLOSING)
_BEYOND_TABLE_ANSWERED = int(Cell.BEYOND_TABLE_ANSWERED)
#: What frameworks raise when ``receive`` or ``send`` tells them that the client has left: Starlette's and uvicorn's,
#: Django's (asgiref), Quart's and Hypercorn's.
_LOSSES = frozenset({"ClientDisconnect", "ClientDisconnected", "RequestAborted", "CancelledError"})
#: What servers answer when the application fails.
_SERVER_ERROR = 500
_NO_HEADERS: tuple[tuple[bytes, bytes], ...] = ()
_NAMES = (
    (b"x-request-id", "HTTP_X_REQUEST_ID"),
    (b"x-request-start", "HTTP_X_REQUEST_START"),
    (b"x-queue-start", "HTTP_X_QUEUE_START"),
    (b"x-forwarded-for", "HTTP_X_FORWARDED_FOR"),
)
_name_of = itemgetter(0)
#: Whether none of some header names says anything about a request whose peer has an address.
_say_nothing = frozenset({b"x-request-id", b"x-request-start", b"x-queue-start"}).isdisjoint
_join = "\0".join


class AsgiRequest(RequestState):
    """One request from the start of its cycle on, made by :func:`begin_request`; it is its own state.

    ``peer_addr`` is the address of the socket's other end, ``None`` for a Unix socket. ``status`` is the one whose head
    was written, ``pending`` one that waits for the first bytes of body, ``given`` one that the application gave after
    the client had left; 0 where there is none. ``sent`` and ``received`` are bytes of body. ``is_over`` says that it
    was counted, or is left to the master.
    """

    # As in FollowedState: begin_request sets all of these.
    __slots__ = ("accounting", "carrier", "head", "is_over", "method", "owns_region", "path", "peer_addr", "pending",
                 "received", "recorded", "region", "route", "sent", "start", "status", "table")  # fmt: skip

    accounting: RequestAccounting
    method: str
    path: str
    peer_addr: Any
    status: int
    pending: int
    sent: int
    received: int
    is_over: bool
    # Defaults of what is rarely set are class attributes, as in RequestState.
    given = 0
    left = False
    application_done = False

    # ---- the application

    def application_called(self, scope: Any) -> None:
        """Have the hooks of frameworks report the route of this request, which reaches the application."""
        routes = self.accounting.routes
        if routes.active:
            scope[REPORT] = self
            if routes.patterns is not None:
                self.pattern_route = routes.patterns.match(self.path)
                self.route_known("")
        self.carrier = scope

    # ---- the answer

    def head_sent(self, status: int) -> None:
        """Note that the status line is on its way: if the worker is killed, the master counts this answer."""
        self.status = status
        self.head = self.accounting.clock()
        if self.region >= 0:
            self.accounting.running.cells[self.region + PHASE] = _WRITING | status << STATUS_SHIFT

    def finish(self, status: int) -> None:
        """Count the answer, whose last byte is being handed over; nothing of this request is counted twice."""
        if self.is_over:
            return
        self.is_over = True
        accounting, carrier, region = self.accounting, self.carrier, self.region
        now = accounting.clock()
        if carrier is not None:
            if ROUTE in carrier:
                accounting.named_route(self)
            self.carrier = None
        self.recorded = True
        # If the worker is killed from here on, the master must not count a lost request: the answer is on its way.
        if region >= 0:
            accounting.running.cells[region + PHASE] = _CLOSING
        elif region == NOWHERE:
            accounting.board.cells[_BEYOND_TABLE_ANSWERED] += 1
        seconds = (now - self.start) / _SECOND
        if self.head and now - self.head > AT_ONCE:
            first = (self.head - self.start) / _SECOND
            accounting.record_stream(self.method, self.route, status, seconds, self.received, self.sent, first)
        else:
            record = accounting.record
            record(self.method, self.route, status, seconds, self.received, self.sent)
        if region >= 0:
            self.region = OVER
            cells = accounting.running.cells
            cells[region + BUSY] += now
            cells[region + START] = 0
            accounting.running.free.append(region)
        else:
            accounting.closed(self)

    def answered_nobody(self) -> None:
        """Note that the client had left when the answer was handed over, if one was: that is known only now."""
        if self.is_over and self.recorded:
            self.accounting.disconnected(self, DisconnectPhase.RESPONSE)

    def discard(self) -> None:
        """End a request whose answer was counted before it began."""
        self.is_over = True
        self.accounting.closed(self)

    def application_ended(self, error: BaseException | None, *, left: bool = False, uploading: bool = False) -> None:
        """Describe how the application ended: by ``error``, if any; ``left`` says that the client has left, while it
        was ``uploading`` its body or else before it had the whole answer.
        """
        self.application_done = True
        caused_by_loss = error is not None and (left or self.is_over) and type(error).__name__ in _LOSSES
        if left and not self.is_over:
            self.left = True
            caused_by_loss = caused_by_loss or (uploading and error is not None)
            phase = DisconnectPhase.REQUEST if uploading else DisconnectPhase.RESPONSE
            self.accounting.disconnected(self, phase)
            if uploading and (error is not None or self.given == _SERVER_ERROR):
                # What a framework answers to its own exception is for nobody, whether or not that leaves it (Litestar).
                self.given = 0
        if error is None or caused_by_loss:
            return
        self.error_type = type(error).__name__
        hide_own_frames(error)
        self.accounting.raised(self, self, self.error_type)
        if self.left and not self.given and not self.pending:
            self.given = _SERVER_ERROR

    def over(self, *, by_master: bool = False) -> None:
        """Complete the books of a request for which the server does nothing more.

        ``by_master`` leaves one without an answer in the table of running requests: the worker is ending, and its
        master counts what it finds there, by the cause of that end.
        """
        if self.is_over:
            return
        status = self.status or (self.left and (self.given or self.pending))
        if status:
            self.finish(status)
        elif by_master and not self.left:
            self.is_over = True
        else:
            self.is_over = True
            self.accounting.named_route(self)
            self.accounting.left_unanswered(self, self._reason())
            self.accounting.closed(self)

    def _reason(self) -> UnansweredReason:
        if self.left:
            return UnansweredReason.CLIENT_LEFT
        return UnansweredReason.SYSTEM_EXIT if self.error_type == "SystemExit" else UnansweredReason.OTHER


def begin_request(  # noqa: C901 - calls that each request would make are written out
    accounting: RequestAccounting,
    method: str,
    path: str,
    peer: Any,
    headers: Iterable[tuple[bytes, bytes]] = _NO_HEADERS,
    scope: Any = None,
) -> AsgiRequest:
    """Begin the cycle of a request; with a ``scope`` it is about to reach the application.

    ``peer`` is the address of the socket's other end. ``headers`` are pairs of bytes with names in lower case.
    """
    if isinstance(accounting, LoopAccounting):
        # LoopAccounting.new_state
        lag = accounting.lag
        lag.ran = True
        if not lag.armed:
            lag.arm()
    request = AsgiRequest()
    request.accounting = accounting
    request.start = start = accounting.clock()
    request.method = method
    request.path = path
    request.peer_addr = peer
    request.status = request.pending = request.sent = request.received = request.head = 0
    request.is_over = request.recorded = False
    request.route = ""
    request.carrier = None
    request.table = running = accounting.running
    try:
        region = running.free.pop()
    except IndexError:
        region = NOWHERE
        request.owns_region = False
        accounting.board.enter(start)
    else:
        request.owns_region = True
        running.cells[region + BUSY] -= start
    request.region = region
    client = peer[0] if peer.__class__ is tuple else ""
    if client and _say_nothing(map(_name_of, headers)):
        if region >= 0:
            try:
                data = _join((method, client, "", path)).encode()
            except UnicodeEncodeError:
                data = _join((method, client, "", path)).encode("utf-8", "replace")
            describe(running.cells, region * 8, data, _APPLICATION, start)
    else:
        environ = _environ(client, headers)
        accounting.describe_request(request, request, environ)
        accounting.observe_proxy(request, environ)
    if scope is not None:
        # application_called, where no pattern may name the route
        routes = accounting.routes
        if routes.active:
            if routes.patterns is None:
                scope[REPORT] = request
            else:
                request.application_called(scope)
        request.carrier = scope
    return request


class RefusedRequest:
    """A request that the server refused while reading it; ``method`` is empty if it was not read yet."""

    promgun: RequestState

    def __init__(self, method: str = "") -> None:
        self.method = method


def count_refused(
    accounting: RequestAccounting, error: BaseException | None, method: str, status: int, sent: int
) -> None:
    """Count a request that the server answers with ``status`` and ``sent`` bytes of body, because of ``error``, without
    calling the application.
    """
    if error is not None:
        accounting.refused(error)
    request = RefusedRequest(method)
    state = accounting.begin(request)
    accounting.answered(request, state, status, sent)
    accounting.closed(state)


def _environ(client: str, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return what the accounting asks of a WSGI ``environ``."""
    environ = {"REMOTE_ADDR": client}
    fields = dict(headers)
    for name, key in _NAMES:
        if name in fields:
            environ[key] = fields[name].decode("latin-1")
    return environ
