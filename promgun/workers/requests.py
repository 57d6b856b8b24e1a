"""How a worker follows its requests.

A request is followed at three places: around ``handle_request`` (it begins, it is over), around the application (it
was reached, it failed), and at
``Response.close`` (the last byte was handed to the socket: here it is counted). The application's iterable is not
touched, so ``sendfile`` stays on,
and no hook of the user's is replaced. What Gunicorn refuses, or the application fails, is answered and counted in
``handle_error``.
"""

from __future__ import annotations

from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from gunicorn.http.wsgi import FileWrapper

from promgun.store.board import Board, Cell
from promgun.store.running import Phase
from promgun.workers.arrival import ON_LINUX, TrustedPeers, kernel_wait, proxy_wait
from promgun.workers.exchange import (
    Exchange,
    StatusTap,
    came_from_application,
    file_size,
    response_has_no_body,
    watch_body,
)

if TYPE_CHECKING:
    from promgun.metrics.instruments import Instruments

_SECOND = 1_000_000_000
_SERVED = int(Cell.SERVED)
_READING = int(Phase.READING)
_WRITING = int(Phase.WRITING)
_QUEUE_SECONDS = "gunicorn_request_queue_seconds"


class RequestFollower:
    """The part of :class:`~promgun.workers.mixin.PrometheusMixin` that is in the path of every request.

    ``request_at`` is the place of the request in the arguments of the class's ``handle_request``.
    """

    request_at = 1

    nr: int
    log: Any
    wsgi: Any
    instruments: Instruments
    _board: Board
    _record: Any
    _application: Any
    _trusted: TrustedPeers

    def region_of(self, args: tuple[Any, ...]) -> int:  # noqa: ARG002 - what a subclass goes by
        """Return the board's region that the connection of a request has already; -1 when the request takes its own."""
        return -1

    def handle_request(self, *args: Any) -> Any:
        """Serve a request of HTTP/1."""
        return self._generic_handle_request(super().handle_request, args)  # type: ignore[misc] # the worker class

    def handle_http2_request(self, *args: Any) -> Any:
        """Serve a request of HTTP/2, whose failures the caller answers with 500 and no call of ``handle_error``."""
        req = args[self.request_at]
        try:
            return self._generic_handle_request(super().handle_http2_request, args)  # type: ignore[misc] # same
        except Exception:
            if req.promgun.error_type and not req.promgun.recorded:
                self._handle_request_metrics(req, req.promgun, 500, 0)
            raise

    def _generic_handle_request(self, handle: Any, args: tuple[Any, ...]) -> Any:
        start = monotonic_ns()
        req = args[self.request_at]
        board = self._board
        board.enter(start)
        region = self.region_of(args)
        own = board.requests.take(start, _READING) if region < 0 else -1
        exchange = req.promgun = Exchange(start, watch_body(req), region if own < 0 else own)
        try:
            result = handle(*args)
        except BaseException as error:
            self._exchange_broke(req, exchange, error)
            raise
        else:
            if not exchange.recorded:
                self._exchange_unfinished(req, exchange)
            return result
        finally:
            response = exchange.response
            if response is not None:
                # Both point back at us: without this every request would wait for the garbage collector.
                exchange.response = None
                response.__dict__.pop("close", None)
            board.requests.leave(own)
            board.leave(monotonic_ns())
            board.cells[_SERVED] = self.nr

    def _call_application(self, environ: Any, start_response: Any) -> Any:
        response = start_response.__self__
        req = response.req
        exchange = req.promgun
        exchange.response = response
        exchange.reached = True
        requests = self._board.requests
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        address = environ.get("REMOTE_ADDR", "")
        text = f"{req.method}\0{exchange.route}\0{address}\0{request_id}\0{req.path}"
        requests.describe(exchange.region, exchange.start, text)
        if ("HTTP_X_REQUEST_START" in environ or "HTTP_X_QUEUE_START" in environ) and req.peer_addr in self._trusted:
            wait = proxy_wait(environ)
            if wait is not None:
                self.instruments.histograms.observe(_QUEUE_SECONDS, ("proxy",), wait)
        response.close = partial(self._close_response, response, exchange)
        try:
            result = self._application(environ, start_response)
        except BaseException as error:
            exchange.error_type = type(error).__name__
            raise
        requests.phase(exchange.region, _WRITING)
        if result.__class__ is FileWrapper:
            exchange.file_size = file_size(result)
        return result

    def _close_response(self, response: Any, exchange: Exchange) -> None:
        type(response).close(response)
        sent = response.sent
        if not sent and exchange.file_size and not response_has_no_body(response):
            sent = exchange.file_size if response.response_length is None else response.response_length
        self._handle_request_metrics(response.req, exchange, response.status_code, sent)

    def _handle_request_metrics(self, req: Any, exchange: Exchange, status: int, sent: int) -> None:
        """Count an answered request."""
        exchange.recorded = True
        body = exchange.body
        received = 0
        if body is not None:
            received = body.received
            if body.cut:
                self._disconnected(exchange, "request")
        self._record(req.method, exchange.route, status, (monotonic_ns() - exchange.start) / _SECOND, received, sent)

    def _handle_request_error_metrics(self, req: Any, exchange: Exchange, error_type: str) -> None:
        """Count an exception that left the application."""
        method = self.instruments.recorder.known_method(req.method)
        self.instruments.counters.inc("gunicorn_failed_requests_total", (method, exchange.route, error_type))

    def _disconnected(self, exchange: Exchange, phase: str) -> None:
        """Count a client that left; who was gone before the body's end is not there for the answer either."""
        if not exchange.client_left:
            exchange.client_left = True
            self.instruments.counters.inc("gunicorn_client_disconnects_total", (phase,))

    def _exchange_broke(self, req: Any, exchange: Exchange, error: BaseException) -> None:
        """Judge an exception by what was answered: async workers leave by StopIteration after a success as well.

        Behind a StopIteration that Gunicorn raises over a failure stands the failure itself, as its context.
        """
        cause = error.__context__ if isinstance(error, StopIteration) else error
        if cause is None or exchange.response is None:
            return
        if came_from_application(cause, exchange):
            self._handle_request_error_metrics(req, exchange, exchange.error_type or type(cause).__name__)
        else:
            cut = exchange.body is not None and exchange.body.cut
            self._disconnected(exchange, "request" if cut else "response")
        if not exchange.recorded and (exchange.response.headers_sent or isinstance(cause, OSError)):
            self._exchange_unfinished(req, exchange)

    def _exchange_unfinished(self, req: Any, exchange: Exchange) -> None:
        """Count a request whose answer was begun but not closed; one that got no status got no answer."""
        response = exchange.response
        if response is not None and response.status is not None:
            self._handle_request_metrics(req, exchange, response.status_code, response.sent)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that Gunicorn refused or the application failed."""
        self._generic_handle_error(super().handle_error, req, client, addr, exc)  # type: ignore[misc] # the worker class

    def _generic_handle_error(self, handle: Any, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        tap = StatusTap(client)
        start = monotonic_ns()
        handle(req, tap, addr, exc)
        request = req if req is not None else getattr(exc, "req", None)
        exchange = getattr(request, "promgun", None)
        if exchange is None:
            exchange = Exchange(start, None)
        if not exchange.reached:
            self.instruments.counters.inc("gunicorn_invalid_requests_total", (type(exc).__name__,))
        if tap.status and not exchange.recorded:
            method = getattr(request, "method", None) or ""
            seconds = (monotonic_ns() - exchange.start) / _SECOND
            received = exchange.body.received if exchange.body is not None else 0
            exchange.recorded = True
            self._record(method, exchange.route, tap.status, seconds, received, tap.body)

    # ---- before a request

    def observe_arrival(self, client: Any, addr: Any) -> None:
        """Note how long a connection that was just accepted had waited for us; TCP on Linux."""
        if ON_LINUX and addr.__class__ is tuple:
            wait = kernel_wait(client)
            if wait is not None:
                self.instruments.histograms.observe(_QUEUE_SECONDS, ("kernel",), wait)


class ConnectionFollower(RequestFollower):
    """For classes that serve a whole connection in ``handle(listener, client, addr)``."""

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection."""
        self.observe_arrival(client, addr)
        super().handle(listener, client, addr)  # type: ignore[misc] # the worker class
