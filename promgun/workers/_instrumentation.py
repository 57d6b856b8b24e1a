"""How a worker follows its requests.

A request is followed at three places: around ``handle_request`` (it begins, it is over), around the application (it
was reached, it failed), and around the response's ``close`` (the last byte was handed to the socket: here it is
counted). The application's iterable is not touched, so ``sendfile`` stays on, and no hook of the user's is replaced.
What Gunicorn refuses, or the application fails, is answered and counted in ``handle_error`` (``answers``).

The methods of the class behind us are bound once, and the response's class, not each response, gets our ``close``: a
look-up through ``super()`` costs as much as a whole counter, an attribute put on each response four times that.
"""

from __future__ import annotations

import sys
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from gunicorn.http.body import LengthReader
from gunicorn.http.wsgi import FileWrapper, Response

from promgun.metrics.families.requests import REQUEST_QUEUE_SECONDS
from promgun.metrics.label_values import QueueSource
from promgun.store.board import Board, Cell
from promgun.store.request_table import BUSY, NOWHERE, PHASE, START, Phase, RunningRequests, describe
from promgun.workers._queue_time import TrustedPeers, arrival_observer, proxy_wait
from promgun.workers._request_state import ANSWERED, CountingReader, Exchange, file_size
from promgun.workers._responses import AnswerCounter

if TYPE_CHECKING:
    from collections.abc import Callable

_SERVED = int(Cell.SERVED)
_APPLICATION = int(Phase.APPLICATION)
_WRITING = int(Phase.WRITING)


def _no_request(*_: Any) -> None:
    """Stand in for what the class behind us does not have, and so does not call."""


class RequestFollower(AnswerCounter):
    """The part of :class:`~promgun.workers._mixin.PrometheusMixin` that is in the path of every request.

    ``request_at`` is the place of the request in the arguments of the class's ``handle_request``. A request has a
    region of the board to itself, unless the class serves one at a time, and names its ``only_region``, or has given
    each connection one, as ``conn.promgun`` (``region_of_connection``).
    """

    request_at = 1
    only_region: int | None = None
    region_of_connection = False
    #: Whether the class calls ``handle_request`` with a request at all (Gunicorn's on Tornado does not).
    gives_requests = True

    nr: int
    max_requests: int
    log: Any
    cfg: Any
    wsgi: Any
    sockets: list[Any]
    _board: Board
    _trusted: TrustedPeers

    def follow(self) -> None:
        """Get ready to follow requests, in the process that serves them; the instruments are there."""
        self._record = self.instruments.recorder.record
        self._requests: RunningRequests = self._board.requests
        behind: Callable[..., Any] = getattr(super(), "handle_request", _no_request)
        self._follow_request = self._generic_handle_request(behind) if self.gives_requests else behind
        self.observe_arrival = arrival_observer(
            self.instruments.histograms.observer(REQUEST_QUEUE_SECONDS, (QueueSource.KERNEL,)),
            listeners=len(self.sockets),
        )
        if type(self).handle_request is RequestFollower.handle_request:
            # Nobody stands in front of it.
            self.handle_request = self._follow_request  # type: ignore[method-assign]
        self.measure(Response)

    def handle_request(self, *args: Any) -> Any:
        """Serve a request of HTTP/1."""
        return self._follow_request(*args)

    def handle_http2_request(self, *args: Any) -> Any:
        """Serve a request of HTTP/2, whose failures the caller answers with 500 and no call of ``handle_error``."""
        req, behind = args[self.request_at], super().handle_http2_request  # type: ignore[misc] # same
        *most, connection = args
        follow = self._generic_handle_request(lambda *usual: behind(*usual, connection))
        try:
            return follow(*most)
        except Exception:
            if req.promgun.error_type and not req.promgun.recorded:
                self._handle_request_metrics(req, req.promgun, 500, 0)
            raise

    def _generic_handle_request(self, handle: Callable[..., Any]) -> Callable[..., Any]:  # noqa: C901 - see below
        """Return ``handle``, the method of the class behind us, with the following of a request around it."""
        board, requests, request_first = self._board, self._requests, self.request_at == 0
        only_region, region_of_connection = self.only_region, self.region_of_connection
        take, leave, recycled = requests.free.pop, requests.free.append, self.max_requests != sys.maxsize
        region_is_own = only_region is None and not region_of_connection

        # One frame, and two shapes of call spelled out, because every request pays for it: CPython 3.11 enters its
        # evaluation loop anew for handle(*args).
        def follow_request(  # noqa: C901, PLR0912 - same
            first: Any, second: Any, third: Any = None, fourth: Any = None
        ) -> Any:
            start = monotonic_ns()
            req = first if request_first else second
            if only_region is not None:
                region = only_region
            elif region_of_connection:
                region = getattr(second, "promgun", NOWHERE)
            else:
                # It shows once it is with the application, some 30 µs from here.
                try:
                    region = take()
                except IndexError:
                    region = NOWHERE
            exchange = req.promgun = Exchange()
            exchange.start = start
            exchange.region = region
            if region >= 0:
                requests.cells[region + BUSY] -= start
            else:
                board.enter(start)
            try:
                reader = getattr(req.body, "reader", None)
                # A body of HTTP/2 has none.
                if reader is not None and (reader.__class__ is not LengthReader or reader.length):
                    exchange.body = req.body.reader = CountingReader(reader)
                result = handle(req, second) if request_first else handle(first, req, third, fourth)
            except BaseException as error:
                self._exchange_broke(req, exchange, error)
                raise
            else:
                if not exchange.recorded:
                    self._exchange_unfinished(req, exchange)
                return result
            finally:
                if exchange.response is not None:
                    # It points back at us: without this every request would wait for the garbage collector.
                    exchange.response = ANSWERED
                now = monotonic_ns()
                if region >= 0:
                    cells = requests.cells
                    cells[region + BUSY] += now
                    if region_is_own:
                        cells[region + START] = 0
                        leave(region)
                else:
                    board.leave(now)
                if recycled:
                    board.cells[_SERVED] = self.nr

        return follow_request

    def follow_application(self, application: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``application`` with us in front of it."""
        requests, joined = self._requests, "\0".join

        def call_application(environ: Any, start_response: Any) -> Any:
            response = start_response.__self__
            req = response.req
            exchange = req.promgun
            exchange.response = response
            region = exchange.region
            if region >= 0:
                get = environ.get
                texts = req.method, exchange.route, get("REMOTE_ADDR", ""), get("HTTP_X_REQUEST_ID", ""), req.path
                try:
                    data = joined(texts).encode()
                except (TypeError, UnicodeEncodeError):
                    # Something of a middleware's, or of a request class of another's.
                    data = joined(map(str, texts)).encode("utf-8", "replace")
                describe(requests.cells, region * 8, data, _APPLICATION, exchange.start)
            if "HTTP_X_REQUEST_START" in environ or "HTTP_X_QUEUE_START" in environ:
                self._observe_proxy(req, environ)
            try:
                result = application(environ, start_response)
            except BaseException as error:
                exchange.error_type = type(error).__name__
                raise
            if region >= 0:
                requests.cells[region + PHASE] = _WRITING
            if result.__class__ is FileWrapper:
                exchange.file_size = file_size(result)
            return result

        return call_application

    def _observe_proxy(self, req: Any, environ: Any) -> None:
        if req.peer_addr in self._trusted:
            wait = proxy_wait(environ)
            if wait is not None:
                self.instruments.histograms.observe(REQUEST_QUEUE_SECONDS, (QueueSource.PROXY,), wait)


class ConnectionFollower(RequestFollower):
    """For classes that serve a whole connection in ``handle(listener, client, addr)``."""

    def follow(self) -> None:
        """Get ready to follow connections as well."""
        super().follow()
        self._handle_behind: Callable[..., None] = super().handle  # type: ignore[misc] # the worker class

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection."""
        if addr.__class__ is tuple:
            self.observe_arrival(client, monotonic_ns())
        self._handle_behind(listener, client, addr)
