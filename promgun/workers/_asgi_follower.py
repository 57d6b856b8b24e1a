"""Follows one HTTP request of an ASGI server: what is sent of its answer, and how its application ends.

The server's adapter makes the calls, in this order: :class:`AsgiRequest` when the request's cycle begins,
``head_sent`` when its status line is written, ``finish`` when the last byte is, ``application_ended`` when the
application returns or raises, ``over`` when the server has nothing more to do for it. A server answers some requests
itself: those calls are the same. After the last byte the request is over, whatever the application does then: a
background task is not part of it.

The application of a client that has left does not notice: ``send`` does nothing. Such a request is counted under the
status that the application gives, or as unanswered when it gives none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from promgun.metrics.label_values import DisconnectPhase, UnansweredReason
from promgun.routes.reporting import REPORT
from promgun.store.request_table import PHASE, STATUS_SHIFT, Phase
from promgun.workers._accounting import RequestAccounting
from promgun.workers._request_state import DeclaredBody, RequestState
from promgun.workers._tracebacks import hide_own_frames

_WRITING = int(Phase.WRITING)
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


class AsgiRequest:
    """One request from the start of its cycle on; the five calls of ``RequestAccounting`` are made through it.

    ``peer`` is the address of the socket's other end, ``None`` for a Unix socket. ``headers`` are pairs of bytes with
    names in lower case. ``status`` is the one whose head was
    written, ``pending`` one that waits for the first bytes of body, ``given`` one that the application gave after the
    client had left; 0 where there is none. ``sent`` and ``received`` are bytes of body.
    """

    __slots__ = (
        "accounting",
        "application_done",
        "error_type",
        "given",
        "is_over",
        "left",
        "method",
        "path",
        "peer_addr",
        "pending",
        "promgun",
        "received",
        "sent",
        "status",
    )

    promgun: RequestState

    def __init__(
        self,
        accounting: RequestAccounting,
        method: str,
        path: str,
        peer: Any,
        headers: Iterable[tuple[bytes, bytes]] = _NO_HEADERS,
    ) -> None:
        self.accounting = accounting
        self.method = method
        self.path = path
        self.peer_addr = peer
        self.status = self.pending = self.given = self.sent = self.received = 0
        self.is_over = self.left = self.application_done = False
        self.error_type = ""
        state = accounting.begin(self)
        environ = _environ(peer, headers)
        accounting.describe_request(self, state, environ)
        if len(environ) > 1:
            accounting.observe_proxy(self, environ)

    # ---- the application

    def application_called(self, scope: Any) -> None:
        """Have the hooks of frameworks report the route of this request, which reaches the application."""
        accounting, state = self.accounting, self.promgun
        routes = accounting.routes
        if routes.active:
            state.table = accounting.running
            scope[REPORT] = state
            if routes.patterns is not None:
                state.pattern_route = routes.patterns.match(self.path)
                state.route_known("")
        state.carrier = scope

    # ---- the answer

    def head_sent(self, status: int) -> None:
        """Note that the status line is on its way: if the worker is killed, the master counts this answer."""
        self.status = status
        state = self.promgun
        state.head = self.accounting.clock()
        if state.region >= 0:
            self.accounting.running.cells[state.region + PHASE] = _WRITING | status << STATUS_SHIFT

    def finish(self, status: int) -> None:
        """Count the answer, whose last byte is being handed over; nothing of this request is counted twice."""
        if self.is_over:
            return
        self.is_over = True
        accounting, state = self.accounting, self.promgun
        if self.received:
            state.body = DeclaredBody(self.received)
        accounting.answered(self, state, status, self.sent)
        accounting.closed(state)

    def discard(self) -> None:
        """End a request whose answer was counted before it began."""
        self.is_over = True
        self.accounting.closed(self.promgun)

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
            self.accounting.disconnected(self.promgun, phase)
            if uploading and error is not None:
                # What a framework answers to its own exception is for nobody.
                self.given = 0
        if error is None or caused_by_loss:
            return
        self.error_type = type(error).__name__
        hide_own_frames(error)
        self.accounting.raised(self, self.promgun, self.error_type)
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
            self.accounting.named_route(self.promgun)
            self.accounting.left_unanswered(self.promgun, self._reason())
            self.accounting.closed(self.promgun)

    def _reason(self) -> UnansweredReason:
        if self.left:
            return UnansweredReason.CLIENT_LEFT
        return UnansweredReason.SYSTEM_EXIT if self.error_type == "SystemExit" else UnansweredReason.OTHER


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


def _environ(peer: Any, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return what the accounting asks of a WSGI ``environ``."""
    environ = {"REMOTE_ADDR": str(peer[0])} if peer and peer.__class__ is not str else {}
    fields = dict(headers)
    for name, key in _NAMES:
        if name in fields:
            environ[key] = fields[name].decode("latin-1")
    return environ
