"""What stands in front of a Gunicorn worker class and measures it.

A request is followed at three places: around ``handle_request`` (it begins, it is over), around the application (it
was reached, it failed), and at
``Response.close`` (the last byte was handed to the socket: here it is counted). The application's iterable is not
touched, so
``sendfile`` stays on, and no hook of the user's is replaced. Worker errors are answered, and counted, in
``handle_error``.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, ClassVar

from gunicorn.http.wsgi import FileWrapper

from promgun.metrics.instruments import Instruments, count_log
from promgun.store.board import Cell, Role
from promgun.store.process import STORE
from promgun.workers.exchange import (
    Exchange,
    StatusTap,
    came_from_application,
    file_size,
    response_has_no_body,
    watch_body,
)

if TYPE_CHECKING:
    from promgun.plain import PlainRun

_SECOND = 1_000_000_000
_HEARTBEAT = int(Cell.HEARTBEAT)
_SERVED = int(Cell.SERVED)
_DRAINING = int(Cell.DRAINING)


class PrometheusMixin:
    """Adds metrics to any Gunicorn worker class that it is put in front of.

    ``request_at`` is the place of the request in the arguments of the class's ``handle_request``.
    """

    request_at = 1
    #: What ``promgun run`` does otherwise, where plain Gunicorn is the launcher.
    plain: ClassVar[PlainRun | None] = None

    app: Any
    cfg: Any
    sockets: list[Any]
    log: Any
    nr: int
    alive: bool
    age: int
    max_requests: int
    timeout: float
    wsgi: Any

    @classmethod
    def setup(cls) -> None:
        """Open the store, unless ``promgun run`` has; Gunicorn calls this in the master before it loads anything of
        the user's.
        """
        inherited = getattr(super(), "setup", None)
        if inherited is not None:
            inherited()
        if STORE.directory is None:
            from promgun.plain import PlainRun  # noqa: PLC0415 - only where promgun is not the launcher

            PrometheusMixin.plain = PlainRun(STORE)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take a slot in the master, before the fork: this worker alone inherits it."""
        super().__init__(*args, **kwargs)
        if self.plain is not None:
            self.plain.introduce(self.cfg, self.app, self.log, self.sockets)
        self.slot = STORE.reserve()
        self.start_time = time.time()
        self.worker_id = "" if self.slot is None else str(self.slot.number)

    def capacity(self) -> int:
        """Return how many requests the worker can serve at once."""
        return 1

    # ---- life

    def init_process(self) -> None:
        """Take the slot over in the child, then boot as the class does."""
        STORE.warn = self.log.warning
        slot = STORE.own_slot(Role.WORKER)
        if slot is not None:
            self.worker_id = str(slot.number)
        self.instruments = Instruments(STORE, self.cfg)
        self._record = self.instruments.recorder.record
        self._retried = 0
        count_log(self.instruments.counters)
        self._board = STORE.board
        cells = self._board.cells
        cells[Cell.AGE] = self.age
        cells[Cell.CAPACITY] = self.capacity()
        cells[Cell.MAX_REQUESTS] = self.max_requests if self.max_requests != sys.maxsize else 0
        cells[Cell.TIMEOUT] = int(self.cfg.timeout * _SECOND)
        super().init_process()  # type: ignore[misc] # the worker class behind us

    def load_wsgi(self) -> None:
        """Load the application and stand in front of it."""
        super().load_wsgi()  # type: ignore[misc] # the worker class behind us
        self._application = self.wsgi
        self.wsgi = self._call_application

    def run(self) -> None:
        """Note that the worker is ready, then serve."""
        self._board.cells[Cell.BOOTED] = monotonic_ns()
        super().run()  # type: ignore[misc] # the worker class behind us

    def notify(self) -> None:
        """Tell the master, and the scoreboard, that the worker is alive."""
        super().notify()  # type: ignore[misc] # the worker class behind us
        self.update_worker_metrics()

    def update_worker_metrics(self) -> None:
        """Write the worker's own state to the scoreboard; once a second try again what could not be stored."""
        now = monotonic_ns()
        board = self._board
        board.cells[_HEARTBEAT] = now
        if now - self._retried > _SECOND:
            self._retried = now
            board.cells[_DRAINING] = not self.alive
            self.instruments.retry()

    # ---- requests

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
        exchange = req.promgun = Exchange(start, watch_body(req))
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
            board.leave(monotonic_ns())
            board.cells[_SERVED] = self.nr

    def _call_application(self, environ: Any, start_response: Any) -> Any:
        response = start_response.__self__
        exchange = response.req.promgun
        exchange.response = response
        exchange.reached = True
        response.close = partial(self._close_response, response, exchange)
        try:
            result = self._application(environ, start_response)
        except BaseException as error:
            exchange.error_type = type(error).__name__
            raise
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
                self._disconnected("request")
        self._record(req.method, exchange.route, status, (monotonic_ns() - exchange.start) / _SECOND, received, sent)

    def _handle_request_error_metrics(self, req: Any, exchange: Exchange, error_type: str) -> None:
        """Count an exception that left the application."""
        method = self.instruments.recorder.known_method(req.method)
        self.instruments.counters.inc("gunicorn_failed_requests_total", (method, exchange.route, error_type))

    def _disconnected(self, phase: str) -> None:
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
            self._disconnected("response")
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
