"""What became of a request: answered, failed, refused, or given up by the client."""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from promgun.metrics.families.requests import (
    CLIENT_DISCONNECTS,
    FAILED_REQUESTS,
    INVALID_REQUESTS,
    REQUESTS_LOST,
)
from promgun.metrics.label_values import DisconnectPhase, ExitCause
from promgun.store.board import Board, Cell, ExitHint
from promgun.store.request_table import PHASE, Phase
from promgun.workers._request_state import Exchange, StatusTap, came_from_application, response_has_no_body

if TYPE_CHECKING:
    from promgun.metrics.instruments import Instruments
    from promgun.metrics.recorder import Record

_SECOND = 1_000_000_000
_HINT = int(Cell.EXIT_HINT)
_READING = int(Phase.READING)


class AnswerCounter:
    """The part of :class:`~promgun.workers._mixin.PrometheusMixin` that counts what was answered."""

    instruments: Instruments
    _board: Board
    _record: Record

    def measure(self, response_class: Any) -> None:
        """Count what responses of this class answered when they are closed, in this process."""
        close = response_class.close
        if getattr(close, "by_promgun", False):
            return
        count = self._handle_request_metrics

        def measured_close(response: Any) -> None:
            close(response)
            req = response.req
            try:
                exchange = req.promgun
            except AttributeError:
                return
            if exchange.recorded:
                return
            sent = response.sent
            if not sent and exchange.file_size and not response_has_no_body(response):
                length = response.response_length
                sent = exchange.file_size if length is None else length
            count(req, exchange, response.status_code, sent)

        measured_close.by_promgun = True  # type: ignore[attr-defined] # found again by a class that inherits it
        response_class.close = measured_close

    def _handle_request_metrics(self, req: Any, exchange: Exchange, status: int, sent: int) -> None:
        """Count an answered request."""
        seconds = (monotonic_ns() - exchange.start) / _SECOND
        exchange.recorded = True
        body = exchange.body
        received = 0
        if body is not None:
            received = body.received
            if body.cut:
                self._disconnected(exchange, DisconnectPhase.REQUEST)
        self._record(req.method, exchange.route, status, seconds, received, sent)

    def _handle_request_error_metrics(self, req: Any, exchange: Exchange, error_type: str) -> None:
        """Count an exception that left the application."""
        method = self.instruments.recorder.known_method(req.method)
        self.instruments.counters.inc(FAILED_REQUESTS, (method, exchange.route, error_type))

    def _disconnected(self, exchange: Exchange, phase: DisconnectPhase) -> None:
        """Count a client that left; who was gone before the body's end is not there for the answer either."""
        if not exchange.client_left:
            exchange.client_left = True
            self.instruments.counters.inc(CLIENT_DISCONNECTS, (phase,))

    def _exchange_broke(self, req: Any, exchange: Exchange, error: BaseException) -> None:
        """Judge an exception by what was answered: async workers leave by StopIteration after a success as well.

        Behind a StopIteration that Gunicorn raises over a failure stands the failure itself, as its context.
        """
        if SystemExit in (type(error), type(error.__context__)):
            self._count_cut_off(exchange)
        cause = error.__context__ if isinstance(error, StopIteration) else error
        if exchange.response is None:
            return
        if cause is not None:
            if came_from_application(cause, exchange):
                self._handle_request_error_metrics(req, exchange, exchange.error_type or type(cause).__name__)
            else:
                cut = exchange.body is not None and exchange.body.cut
                self._disconnected(exchange, DisconnectPhase.REQUEST if cut else DisconnectPhase.RESPONSE)
        if not exchange.recorded and (cause is None or exchange.response.headers_sent or isinstance(cause, OSError)):
            self._exchange_unfinished(req, exchange)

    def _exchange_unfinished(self, req: Any, exchange: Exchange) -> None:
        """Count a request whose answer was begun but not closed, or whose response is of a class not seen before; one
        that got no status got no answer.
        """
        # Also where the gevent worker lets SystemExit go no further (gunicorn 27.0 ggevent.handle_request).
        self._count_cut_off(exchange)
        response = exchange.response
        if response is not None:
            self.measure(type(response))
            if response.status is not None:
                self._handle_request_metrics(req, exchange, response.status_code, response.sent)

    def _count_cut_off(self, exchange: Exchange) -> None:
        """Count a request that the worker's own handler of SIGABRT ended: the master will not find it on the board."""
        if self._board.cells[_HINT] == ExitHint.ABORTED and not exchange.cut_off:
            exchange.cut_off = True
            self.instruments.counters.inc(REQUESTS_LOST, (ExitCause.TIMEOUT, exchange.route))
            if exchange.region >= 0:
                self._board.requests.cells[exchange.region + PHASE] = _READING

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
            exchange = Exchange()
            exchange.start = start
        if exchange.response is None:
            self.instruments.counters.inc(INVALID_REQUESTS, (type(exc).__name__,))
        if tap.status and not exchange.recorded:
            method = getattr(request, "method", None) or ""
            seconds = (monotonic_ns() - exchange.start) / _SECOND
            received = exchange.body.received if exchange.body is not None else 0
            exchange.recorded = True
            self._record(method, exchange.route, tap.status, seconds, received, tap.body)
