"""Requests of a worker class that serves them past Gunicorn's ``handle_request``: measured around the application."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic_ns
from typing import Any

from gunicorn.http.wsgi import Response

from promgun.metrics.families.requests import FAILED_REQUESTS

_SECOND = 1_000_000_000


class ForeignServer:
    """Stands before the mixin in a class that is not ours, such as Gunicorn's on gevent's pywsgi.

    Calls that come from Gunicorn's own response object are followed as everywhere else.
    """

    _board: Any
    _record: Any
    instruments: Any

    def follow_application(self, application: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Return ``application`` with us in front of it, and the mixin behind us for its own calls."""
        follow_own: Callable[[Any, Any], Any] = super().follow_application(application)  # type: ignore[misc] # the mixin

        def call_application(environ: Any, start_response: Any) -> Any:
            if isinstance(getattr(start_response, "__self__", None), Response):
                return follow_own(environ, start_response)
            call = ForeignCall(self, environ)
            try:
                result = application(environ, call.begin(start_response))
                return ForeignList(result, call) if isinstance(result, list | tuple) else ForeignBody(result, call)
            except BaseException as error:
                call.fail(error)
                raise

        return call_application

    def enter_foreign(self) -> int:
        """Note that a request runs; return its start."""
        start = monotonic_ns()
        self._board.enter(start)
        return start

    def leave_foreign(self, call: ForeignCall) -> None:
        """Count an answered request."""
        now = monotonic_ns()
        self._record(call.method, "", call.status, (now - call.start) / _SECOND, call.received, call.sent)
        self._board.leave(now)

    def fail_foreign(self, call: ForeignCall, error: BaseException) -> None:
        """Count an exception that left the application."""
        method = self.instruments.recorder.known_method(call.method)
        self.instruments.counters.inc(FAILED_REQUESTS, (method, "", type(error).__name__))


class ForeignCall:
    """One request and its answer, from the call of the application to the end of what it returned."""

    def __init__(self, worker: ForeignServer, environ: Any) -> None:
        self._worker = worker
        self._over = False
        self.method = str(environ.get("REQUEST_METHOD", ""))
        length = str(environ.get("CONTENT_LENGTH") or "")
        self.received = int(length) if length.isdecimal() else 0
        #: What every server answers for an application that fails, or says nothing.
        self.status = 500
        self.sent = 0
        self.start = worker.enter_foreign()

    def begin(self, start_response: Any) -> Any:
        """Return a ``start_response`` that remembers the status."""

        def remember(status: str, headers: Any, exc_info: Any = None) -> Any:
            write = start_response(status, headers, exc_info) if exc_info else start_response(status, headers)
            code = status[:3]
            self.status = int(code) if code.isdecimal() else 500
            return write

        return remember

    def fail(self, error: BaseException) -> None:
        """Count an exception, and the answer that the server gives for it."""
        if not self._over:
            self._worker.fail_foreign(self, error)
            self.end()

    def end(self) -> None:
        """Count the answer, once."""
        if not self._over:
            self._over = True
            self._worker.leave_foreign(self)


class ForeignList(list[bytes]):
    """Pieces that the application returned at once: a list still, for servers derive the answer's length from it."""

    def __init__(self, pieces: Iterable[bytes], call: ForeignCall) -> None:
        super().__init__(pieces)
        self._call = call
        call.sent += sum(map(len, self))

    def close(self) -> None:
        """Note that the request is over."""
        self._call.end()


class ForeignBody:
    """What the application returned, passed on; the request is over when it is closed."""

    def __init__(self, result: Iterable[bytes], call: ForeignCall) -> None:
        self._result = result
        self._call = call

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
