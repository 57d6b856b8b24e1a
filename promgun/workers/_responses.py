"""What became of a request, decided by its response: answered, failed, refused, or left by the client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gunicorn.http.errors import ParseException

from promgun.metrics.label_values import DisconnectPhase
from promgun.workers._accounting import RequestAccounting
from promgun.workers._request_state import RequestState, StatusTap, came_from_application, response_has_no_body

#: Counts an answered request: the request, its state, the status, bytes of body sent.
Answered = Callable[[Any, RequestState, int, int], None]
#: Counts an exception that left the application: the request, its state, the exception's type.
Raised = Callable[[Any, RequestState, str], None]


class ResponseObserver:
    """Watches how Gunicorn's responses end.

    ``answered`` and ``raised`` count; they are the worker's, for a subclass of it may override them.
    """

    __slots__ = ("_accounting", "answered", "raised")

    def __init__(self, accounting: RequestAccounting, answered: Answered, raised: Raised) -> None:
        self._accounting = accounting
        self.answered = answered
        self.raised = raised

    def measure(self, response_class: Any) -> None:
        """Count what responses of this class answered when they are closed, in this process.

        The class, not each response, gets the new ``close``: an attribute set on each response costs four times what
        a whole counter does.
        """
        close = response_class.close
        if getattr(close, "by_promgun", False):
            return
        answered = self.answered

        def measured_close(response: Any) -> None:
            close(response)
            req = response.req
            try:
                state = req.promgun
            except AttributeError:
                return
            if state.recorded:
                return
            sent = response.sent
            if not sent and state.file_size and not response_has_no_body(response):
                length = response.response_length
                sent = state.file_size if length is None else length
            answered(req, state, response.status_code, sent)

        measured_close.by_promgun = True  # type: ignore[attr-defined] # found again by a class that inherits it
        response_class.close = measured_close

    def broken(self, req: Any, state: RequestState, error: BaseException) -> None:
        """Decide by the response what an exception from ``handle_request`` means.

        Async workers raise StopIteration after a success (gunicorn 25.3 to 27.0); one that Gunicorn raises over a
        failure has the failure as its context.
        """
        if SystemExit in (type(error), type(error.__context__)):
            self._accounting.cut_off(state)
        cause = error.__context__ if isinstance(error, StopIteration) else error
        if state.response is None:
            return
        if cause is not None:
            if came_from_application(cause, state):
                self.raised(req, state, state.error_type or type(cause).__name__)
            else:
                cut = state.body is not None and state.body.cut
                self._accounting.disconnected(state, DisconnectPhase.REQUEST if cut else DisconnectPhase.RESPONSE)
        if not state.recorded and (cause is None or state.response.headers_sent or isinstance(cause, OSError)):
            self.unfinished(req, state)

    def unfinished(self, req: Any, state: RequestState) -> None:
        """Count a request whose response was begun and not closed, or is of a class not seen before.

        A response without a status was no answer.
        """
        # The gevent worker lets SystemExit go no further (gunicorn 27.0 ggevent.handle_request).
        self._accounting.cut_off(state)
        response = state.response
        if response is not None:
            self.measure(type(response))
            if response.status is not None:
                self.answered(req, state, response.status_code, response.sent)

    def error_answered(
        self, handle: Callable[..., Any], req: Any, client: Any, addr: Any, error: BaseException
    ) -> None:
        """Let ``handle``, Gunicorn's ``handle_error``, answer; count what it sent."""
        tap = StatusTap(client)
        start = self._accounting.clock()
        handle(req, tap, addr, error)
        request = req if req is not None else getattr(error, "req", None)
        state = getattr(request, "promgun", None)
        if state is None or (state.recorded and isinstance(error, ParseException)):
            # gthread (gunicorn 27.0 ``_keepalive_after``) names the request before: it was answered, and what stands
            # behind it on the connection is refused by an answer of its own.
            request, state = None, RequestState()
            state.start = start
        if state.response is None:
            self._accounting.refused(error)
        if tap.status and not state.recorded:
            self.answered(request if getattr(request, "method", None) else _UNREAD, state, tap.status, tap.body)


class _Unread:
    """A request whose head could not be read."""

    method = ""


_UNREAD = _Unread()
