"""Decides how a request is counted, by its response and by how ``handle_request`` ended.

If a status line was sent, or an attempt was made, it is answered. If none was, it is left unanswered when the worker
continues, and lost when the worker has to end. A connection that became a websocket is none of the three.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.wsgi import Response

from promgun.metrics.label_values import DisconnectPhase, ExitCause, UnansweredReason
from promgun.workers._accounting import RequestAccounting
from promgun.workers._request_state import (
    RequestState,
    StatusTap,
    asks_for_websocket,
    came_from_application,
    method_read,
    raised_by_gunicorn,
    response_behind,
    response_has_no_body,
)
from promgun.workers._response_close import Close, counted_and_closed
from promgun.workers._tracebacks import hide_own_frames
from promgun.workers._websockets import count_unseen

#: Counts an answered request: the request, its state, the status, bytes of body sent.
Answered = Callable[[Any, RequestState, int, int], None]
#: Counts an exception that left the application: the request, its state, the exception's type.
Raised = Callable[[Any, RequestState, str], None]

#: The exception that gevent and eventlet raise in a killed greenlet.
_GREENLET_EXIT = "GreenletExit"
_REASONS = {
    "StopIteration": UnansweredReason.STOP_ITERATION,
    "SystemExit": UnansweredReason.SYSTEM_EXIT,
}


class ResponseObserver:
    """Observes how Gunicorn's responses end, and has the requests counted.

    ``answered`` and ``raised`` count; they are passed in because a worker class may override them. ``is_ending`` tells
    whether the worker has stopped serving, ``cut`` is called with each request that such a worker cuts off,
    ``closing`` returns what replaces ``close`` of Gunicorn's own responses, given that and what counts one,
    ``unanswered_exits`` are the exceptions other than ``Exception`` to which its class answers nothing, and
    ``hands_on`` tells whether what leaves its ``handle_request`` is sure to reach ``handle_error``.
    """

    __slots__ = (
        "_accounting",
        "_closing",
        "_cut",
        "_hands_on",
        "_is_ending",
        "_unanswered_exits",
        "answered",
        "raised",
    )

    def __init__(
        self,
        accounting: RequestAccounting,
        answered: Answered,
        raised: Raised,
        is_ending: Callable[[], bool] = lambda: False,
        cut: Callable[[RequestState], None] = lambda _: None,
        *,
        closing: Callable[[Close, Close], Close] = counted_and_closed,
        unanswered_exits: tuple[type[BaseException], ...] = (),
        hands_on: bool = False,
    ) -> None:
        self._accounting = accounting
        self.answered = answered
        self.raised = raised
        self._is_ending = is_ending
        self._cut = cut
        self._unanswered_exits = unanswered_exits
        self._hands_on = hands_on
        self._closing = closing

    def measure(self, response_class: Any) -> None:
        """Replace ``close`` of this response class, in this process, by one that also counts the answer.

        Replacing it on each response would cost a request four times as much as counting does.
        """
        close = response_class.close
        if is_measured(response_class):
            return
        answered = self.answered

        def count(response: Any) -> None:
            req = response.req
            try:
                state = req.promgun
                status = response.status_code
            except AttributeError:
                # The request was not begun here, or the application never called start_response: Gunicorn's close
                # fails.
                return
            if state.recorded:
                return
            sent = response.sent
            if not sent and state.file_size and not response_has_no_body(response):
                length = response.response_length
                sent = state.file_size if length is None else length
            answered(req, state, status, sent)

        def close_and_count(response: Any) -> None:
            close(response)
            count(response)

        measured = close_and_count if response_class is not Response else self._closing(close, count)
        measured.by_promgun = True  # type: ignore[attr-defined] # recognised in a subclass that inherits it
        response_class.close = measured

    def broken(  # noqa: C901 - one question after the other; a call more would cost each answer of an async worker
        self, req: Any, state: RequestState, error: BaseException
    ) -> bool:
        """Decide how to count an exception that left ``handle_request``; return whether the request is not over yet,
        because ``handle_error`` is to answer it.

        Async workers raise StopIteration after a success (gunicorn 25.3 to 27.0); one that Gunicorn raises over a
        failure has the failure as its context. The body may raise it as well, when its iteration begins.
        """
        cause: BaseException | None = error
        if isinstance(error, StopIteration):
            cause = error.__context__ or (error if state.error_type else None)
            if cause is None and not state.recorded and not raised_by_gunicorn(error):
                cause = error
        if state.response is None:
            if state.handshake:
                # An open websocket has ended: no request failed.
                hide_own_frames(error)
            else:
                # The application was called past the accounting: by a thread that outlives the worker's service, or
                # through a middleware that left nothing of the request in environ.
                state.response = response_behind(error, req)
        response = state.response
        if response is None:
            return not state.recorded and self._left(req, state, error, error)
        if cause is None or self._is_cut_off(cause):
            if not state.recorded:
                self._count_cut(req, state, cause)
            return False
        if not state.recorded and self._is_websocket(req, state, error):
            count_unseen(self._accounting, state)
            if not isinstance(error, StopIteration):
                self._describe(req, state, cause)
            return False
        tried = self._describe(req, state, cause)
        if state.recorded:
            return False
        if response.headers_sent or (response.status is not None and tried):
            self.measure(type(response))
            self.answered(req, state, response.status_code, response.sent)
            return False
        return self._left(req, state, error, cause)

    def _count_cut(self, req: Any, state: RequestState, cause: BaseException | None) -> None:
        if cause is not None and not self._accounting.aborted:
            self._cut(state)
        self.unfinished(req, state)

    def _is_cut_off(self, cause: BaseException) -> bool:
        """Whether the exception is the worker's own way to end the request, and the class answers nothing to it."""
        if _is_exit(cause, _GREENLET_EXIT):
            return self._is_ending()
        return isinstance(cause, self._unanswered_exits) and self._accounting.aborted

    def _left(self, req: Any, state: RequestState, error: BaseException, cause: BaseException) -> bool:
        """Count a request that nothing answers; return whether ``handle_error`` is sure to answer it."""
        if self._is_unanswered(req, error):
            self._leave(state, cause)
            return False
        return self._hands_on and not hasattr(req, "stream")

    def _describe(self, req: Any, state: RequestState, cause: BaseException) -> bool:
        """Count an application's exception or a client that left; return whether Gunicorn was sending the answer."""
        if came_from_application(cause, state):
            hide_own_frames(cause)
            self.raised(req, state, state.error_type or type(cause).__name__)
            return False
        body = state.body
        cut = body is not None and body.cut
        self._accounting.disconnected(state, DisconnectPhase.REQUEST if cut else DisconnectPhase.RESPONSE)
        return body is None or cause is not body.error

    def unfinished(self, req: Any, state: RequestState) -> None:
        """Decide how to count a request that ended without an exception and is not counted yet: its response was not
        closed, or has a class that was not seen before.
        """
        response = state.response
        if response is None or state.recorded:
            return
        seen = is_measured(type(response))
        self.measure(type(response))
        error_type = state.error_type
        if response.status is not None and (response.headers_sent or not seen):
            if seen and self._is_ending():
                # The gevent worker swallows GreenletExit (gunicorn 27.0 ggevent.handle_request).
                self.raised(req, state, error_type or _GREENLET_EXIT)
            self.answered(req, state, response.status_code, response.sent)
        elif self._is_websocket(req, state, None):
            count_unseen(self._accounting, state)
        elif self._accounting.aborted:
            self._accounting.cut_off(state, ExitCause.TIMEOUT)
        elif self._is_ending() and error_type in {"", _GREENLET_EXIT}:
            self._accounting.cut_off(state, ExitCause.GRACEFUL_TIMEOUT)
        else:
            if error_type:
                self.raised(req, state, error_type)
            self._accounting.left_unanswered(state, _REASONS.get(error_type, UnansweredReason.OTHER))

    def _is_unanswered(self, req: Any, error: BaseException) -> bool:
        """Whether Gunicorn answers nothing to an exception that leaves ``handle_request`` (25.3 to 27.0: the
        ``handle`` of each class, and ``_serve_http2_stream``).
        """
        if not isinstance(error, Exception):
            return isinstance(error, self._unanswered_exits)
        if hasattr(req, "stream"):
            return type(error).__module__ == "gunicorn.http2.errors"
        if isinstance(error, ssl.SSLError):
            # Every handle answers it with 403 but for the end of the connection (25.3 to 27.0).
            return error.args[:1] == (ssl.SSL_ERROR_EOF,)
        return isinstance(error, OSError | StopIteration | NoMoreData)

    def _leave(self, state: RequestState, error: BaseException) -> None:
        if state.recorded:
            return
        if self._accounting.aborted:
            self._accounting.cut_off(state, ExitCause.TIMEOUT)
            return
        if state.body is not None and state.body.error is not None:
            reason = UnansweredReason.CLIENT_LEFT
        elif isinstance(error, OSError):
            reason = UnansweredReason.OS_ERROR if state.response is not None else UnansweredReason.CLIENT_LEFT
        else:
            reason = _REASONS.get(type(error).__name__, UnansweredReason.OTHER)
        self._accounting.left_unanswered(state, reason)

    @staticmethod
    def _is_websocket(req: Any, state: RequestState, error: BaseException | None) -> bool:
        """Whether the application turned the connection into a websocket. Where nothing shows what it sent: such
        libraries leave by StopIteration, or return an object that says so.
        """
        if state.handshake is not None:
            return False
        silent = state.response.status is None and state.error_type in {"", "StopIteration"}
        return silent and (error is None or isinstance(error, StopIteration)) and asks_for_websocket(req)

    def error_answered(
        self, handle: Callable[..., Any], req: Any, client: Any, addr: Any, error: BaseException
    ) -> None:
        """Have ``handle``, Gunicorn's ``handle_error``, answer; count what it sent."""
        request = req if req is not None else getattr(error, "req", None)
        state: RequestState | None = getattr(request, "promgun", None)
        if state is None or (state.recorded and isinstance(error, ParseException)):
            # gthread (gunicorn 27.0 ``_keepalive_after``) passes the previous request, which was answered: the bytes
            # after it on the connection are refused by an answer of their own.
            request, state = None, RequestState()
            state.start = self._accounting.clock()
        counted: Any = request if getattr(request, "method", None) else _Refused(method_read(error))
        hide_own_frames(error)

        def answers(status: int, sent: int) -> None:
            if not state.recorded:
                self.answered(counted, state, status, sent)

        try:
            if state.response is None:
                self._accounting.refused(error)
            handle(req, StatusTap(client, answers), addr, error)
        finally:
            if request is not None and not state.recorded:
                self._leave(state, error)
            if state.answered_by_handler:
                state.answered_by_handler = False
                self._accounting.closed(state)


def is_measured(response_class: Any) -> bool:
    """Whether responses of this class are counted when they are closed."""
    return bool(getattr(response_class.close, "by_promgun", False))


def _is_exit(error: BaseException, name: str) -> bool:
    return not isinstance(error, Exception) and type(error).__name__ == name


class _Refused:
    """A request that was refused while being read; ``method`` is empty if it was not read yet."""

    def __init__(self, method: str) -> None:
        self.method = method
