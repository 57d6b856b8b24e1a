"""Measures requests that a worker class serves without Gunicorn's ``handle_request``, around the application only."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gunicorn.http.wsgi import Response

from promgun.store.request_table import NOWHERE
from promgun.workers import _websockets
from promgun.workers._accounting import RequestAccounting
from promgun.workers._request_state import DeclaredBody, response_in
from promgun.workers._responses import ResponseObserver


class ApplicationMixin:
    """Goes before ``PrometheusMixin``, for classes that are not promgun's, such as Gunicorn's on gevent's pywsgi.

    A call for a request that ``PrometheusMixin`` follows is left to it.
    """

    accounting: RequestAccounting
    responses: ResponseObserver
    gives_requests: bool
    log: Any

    def follow_application(self, application: Callable[..., Any]) -> Callable[..., Any]:
        """Return the measured ``application``; one that cannot be called by WSGI is returned as it is."""
        if not self.gives_requests and not is_wsgi_callable(application):
            self.log.warning(
                "Requests are not measured: %s cannot be called with (environ, start_response), as WSGI demands",
                type(application).__qualname__,
            )
            return application
        follow_own: Callable[..., Any] = super().follow_application(application)  # type: ignore[misc] # the next class

        def call_application(environ: Any, start_response: Any) -> Any:
            # A middleware that was put in front may pass a start_response of its own.
            if isinstance(getattr(start_response, "__self__", None), Response) or response_in(environ) is not None:
                return follow_own(environ, start_response)
            call = ApplicationCall(self.accounting, self.responses, environ)
            try:
                result = application(environ, call.remember_status(start_response))
                return FollowedList(result, call) if isinstance(result, list | tuple) else FollowedBody(result, call)
            except BaseException as error:
                call.fail(error)
                raise

        return call_application


def is_wsgi_callable(application: Callable[..., Any]) -> bool:
    """Whether ``application(environ, start_response)`` is a call that can succeed; True where that cannot be told."""
    if inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(type(application).__call__):
        return False
    try:
        inspect.signature(application).bind({}, None)
    except TypeError:
        return False
    except ValueError:
        # A callable in C may have no signature.
        return True
    return True


class ApplicationCall:
    """One request and its answer, from the call of the application to the end of what it returned."""

    def __init__(self, accounting: RequestAccounting, responses: ResponseObserver, environ: Any) -> None:
        self._accounting = accounting
        self._responses = responses
        self._over = False
        self._silent = True
        #: gevent-websocket has answered the handshake before it calls the application.
        self._has_websocket = "wsgi.websocket" in environ
        self._asks_for_websocket = str(environ.get("HTTP_UPGRADE", "")).lower() == "websocket"
        self.method = str(environ.get("REQUEST_METHOD", ""))
        #: The status that servers answer if the application fails or sets none.
        self.status = 500
        self.sent = 0
        self._state = accounting.begin(self, NOWHERE)
        if self._has_websocket:
            _websockets.opened(accounting, self._state, environ)
        length = str(environ.get("CONTENT_LENGTH") or "")
        if length.isdecimal():
            self._state.body = DeclaredBody(int(length))

    def remember_status(self, start_response: Any) -> Any:
        """Return a ``start_response`` that remembers the status."""

        def remember(status: str, headers: Any, exc_info: Any = None) -> Any:
            write = start_response(status, headers, exc_info) if exc_info else start_response(status, headers)
            code = status[:3]
            self.status = int(code) if code.isdecimal() else 500
            self._silent = False
            return write

        return remember

    def fail(self, error: BaseException) -> None:
        """Count an exception, and the answer that the server gives for it."""
        if not self._over:
            if not self._has_websocket:
                self._responses.raised(self, self._state, type(error).__name__)
                self._silent = False
            self.end()

    def end(self) -> None:
        """Count the answer, once."""
        if not self._over:
            self._over = True
            if self._has_websocket:
                _websockets.closed(self._accounting, self._state)
            elif self._silent and self._asks_for_websocket:
                _websockets.count_unseen(self._accounting, self._state)
            else:
                self._responses.answered(self, self._state, self.status, self.sent)
            self._accounting.closed(self._state)


class FollowedList(list[bytes]):
    """The pieces of a body that the application returned as a list: still a list, whose length servers use.

    A server that does not call ``close`` (gevent-websocket 0.10) drops the list; the request ends then.
    """

    def __init__(self, pieces: Iterable[bytes], call: ApplicationCall) -> None:
        super().__init__(pieces)
        self._call = call
        call.sent += sum(map(len, self))

    def __del__(self) -> None:
        self._call.end()

    def close(self) -> None:
        """Note that the request is over."""
        self._call.end()


class FollowedBody:
    """Passes on the body that the application returned; the request ends when it is closed or garbage-collected."""

    def __init__(self, result: Iterable[bytes], call: ApplicationCall) -> None:
        self._result = result
        self._call = call

    def __del__(self) -> None:
        self._call.end()

    def __iter__(self) -> Iterator[bytes]:
        """Pass the pieces on and count their bytes."""
        try:
            for piece in self._result:
                self._call.sent += len(piece)
                yield piece
        except GeneratorExit:
            raise
        except BaseException as error:
            self._call.fail(error)
            raise

    def close(self) -> None:
        """Close what the application returned; servers call it in every case (PEP 3333)."""
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        finally:
            self._call.end()
