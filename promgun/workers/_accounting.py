"""The accounting of requests in five calls: begin, application_called, route_known, answered, closed.

Whatever serves requests makes these calls, in this order, from the thread, greenlet or task of the request. ``begin``
and ``closed`` are called once for every request, ``application_called`` when it reaches the application,
``route_known`` at any time in between. A request is counted exactly once: by ``answered`` when a status line was, or is
just being, handed to the socket; by ``left_unanswered`` or ``cut_off`` when there is none; by ``_websockets`` when
the application turned the connection into a websocket. That happens before ``closed``, but for what Gunicorn answers in
``handle_error``: it is called once ``handle_request`` has raised, after ``closed``, and the request is counted then.
All other counts (an exception, a client that left, a refusal) describe the request and do not complete it.

The WSGI worker classes avoid these calls on the path of every request: ``_instrumentation`` and ``_response_close``
repeat the bodies of ``begin``, ``application_called``, ``answered`` and ``closed``, and a test checks that both do the
same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from time import monotonic_ns
from typing import Any

from promgun.metrics.families.requests import (
    CLIENT_DISCONNECTS,
    FAILED_REQUESTS,
    INVALID_REQUESTS,
    REQUEST_QUEUE_SECONDS,
    REQUESTS_LOST,
    REQUESTS_UNANSWERED,
)
from promgun.metrics.instruments import Instruments
from promgun.metrics.label_values import DisconnectPhase, ExitCause, QueueSource, UnansweredReason
from promgun.metrics.recorder import Recorder, Row
from promgun.routes.sources import REPORT, ROUTE, RouteSources
from promgun.store.board import SIZE, Board, Cell, ExitHint
from promgun.store.request_table import (
    BUSY,
    FIRST,
    NOWHERE,
    OVER,
    PHASE,
    START,
    STEP,
    Phase,
    describe,
    read_running,
)
from promgun.workers._queue_time import TrustedPeers, forwarded_client, proxy_wait
from promgun.workers._request_state import ANSWERED, RequestState
from promgun.workers._websockets import watch_handshake

_SECOND = 1_000_000_000
#: An answer that ends so soon after its first byte, in nanoseconds, is counted as sent at once.
AT_ONCE = 100_000
_HINT = int(Cell.EXIT_HINT)
_APPLICATION = int(Phase.APPLICATION)
_CLOSING = int(Phase.CLOSING)
_BEYOND_TABLE_ANSWERED = int(Cell.BEYOND_TABLE_ANSWERED)


def _text(path: str) -> str:
    """Return a path of WSGI's as text: its characters are bytes (PEP 3333)."""
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


def _count_nothing(*_: Any) -> None:
    """Replaces the counting functions in a child that must not count."""


class RequestAccounting:
    """Counts the requests of one worker process on its board and in its store.

    A ``req`` is Gunicorn's request, or anything with a ``method`` (a string) that takes an attribute ``promgun``.
    ``clock`` returns nanoseconds of the monotonic clock.
    """

    #: Makes the state of a request that begins.
    new_state: Callable[[], RequestState] = RequestState
    #: Whether each request takes a region for itself, so that another may have it when this one became a websocket.
    regions_are_own = False

    __slots__ = ("_trusted", "board", "bounds", "clock", "inc", "kind_doubt", "observe", "record", "record_stream",
                 "routes", "rows", "running", "unmeasured")  # fmt: skip

    def __init__(
        self,
        board: Board,
        instruments: Instruments,
        trusted: TrustedPeers,
        clock: Callable[[], int] = monotonic_ns,
        routes: RouteSources | None = None,
    ) -> None:
        self.board = board
        self.running = board.requests
        self.clock = clock
        self.record: Callable[..., None] = instruments.recorder.record
        self.rows: Mapping[tuple[str, str, int], Row] = instruments.recorder.rows
        self.bounds = instruments.recorder.bounds
        self.record_stream: Callable[..., None] = instruments.streams.record_stream
        self.inc: Callable[..., None] = instruments.counters.inc
        self.observe: Callable[..., None] = instruments.histograms.observe
        self._trusted = trusted
        self.routes = RouteSources() if routes is None else routes
        #: requests until one has its CPU time measured, that one included; here none has
        self.unmeasured = sys.maxsize
        #: asked about each exception that leaves the application
        self.kind_doubt: Callable[[BaseException | None], None] | None = None

    def begin(self, req: Any, region: int | None = None) -> RequestState:
        """Record that a request runs from now on, attach its state to it as ``req.promgun``, and return the state.

        ``region`` is its place in the table of running requests: one that it has already, ``NOWHERE`` to count the
        request without describing it, or ``None`` to occupy a free region until :meth:`closed`.
        """
        state = self.new_state()
        req.promgun = state
        state.start = start = self.clock()
        if region is None:
            region = self.running.free.pop() if self.running.free else NOWHERE
            state.owns_region = region >= 0
        state.region = region
        if region >= 0:
            self.running.cells[region + BUSY] -= start
        else:
            self.board.enter(start)
        return state

    def application_called(self, req: Any, state: RequestState, environ: Any, response: Any) -> None:
        """Record that the request reaches the application; ``response`` is the object that will answer it.

        Writes the request's description to its region, and observes the queue time from a trusted proxy's header.
        """
        state.response = response
        self.describe_request(req, state, environ)
        if self.routes.active:
            self.follow_route(environ, state)
        if "HTTP_UPGRADE" in environ:
            watch_handshake(environ, state, self)
        self.observe_proxy(req, environ)
        state.carrier = environ

    def describe_request(self, req: Any, state: RequestState, environ: Any) -> None:
        """Write the request's description to its region."""
        if state.region >= 0:
            get = environ.get
            client = get("REMOTE_ADDR", "") or forwarded_client(environ)
            texts = req.method, client, get("HTTP_X_REQUEST_ID", ""), req.path
            data = "\0".join(map(str, texts)).encode("utf-8", "replace")
            describe(self.running.cells, state.region * 8, data, _APPLICATION, state.start)

    def follow_route(self, environ: Any, state: RequestState) -> None:
        """Have the hooks of frameworks report the request's route; until then it is that of a pattern."""
        state.table = self.running
        environ[REPORT] = state
        patterns = self.routes.patterns
        if patterns is not None:
            path = environ.get("PATH_INFO", "")
            state.pattern_route = patterns.match(path if path.isascii() else _text(path))
            state.route_known("")

    def route_known(self, state: RequestState, route: str) -> None:
        """Count the request under ``route``, as the framework writes it (``/users/<int:id>``), from now on."""
        state.table = self.running
        state.route_known(route)

    def named_route(self, state: RequestState) -> str:
        """Return the route to count a request under, for the last time: the application may have named another."""
        carrier, state.carrier = state.carrier, None
        if carrier is not None:
            named = carrier.get(ROUTE)
            if isinstance(named, str):
                # A subclass may compare and hash as it likes, and keep its application's objects alive.
                self.route_known(state, named if type(named) is str else str.__str__(named))
        return state.route

    def answered(self, req: Any, state: RequestState, status: int, sent: int) -> None:
        """Count a request that was answered with ``status`` and ``sent`` bytes of body."""
        now = self.clock()
        seconds = (now - state.start) / _SECOND
        if state.carrier is not None:
            self.named_route(state)
        state.recorded = True
        # If the worker is killed from here on, the master must not count a lost request: the answer is out or on its
        # way.
        region = state.region
        if region >= 0:
            self.running.cells[region + PHASE] = _CLOSING
        elif region == NOWHERE:
            self.board.cells[_BEYOND_TABLE_ANSWERED] += 1
        body = state.body
        received = 0
        if body is not None:
            received = body.received
            if body.cut:
                self.disconnected(state, DisconnectPhase.REQUEST)
        head = state.head
        if head and now - head > AT_ONCE:
            first = (head - state.start) / _SECOND
            self.record_stream(req.method, state.route, status, seconds, received, sent, first)
            return
        self.record(req.method, state.route, status, seconds, received, sent)

    def closed(self, state: RequestState) -> None:
        """Record that no part of the request runs any more."""
        if state.response is not None:
            # The response refers to the request, which refers to the state: break the cycle, or it waits for the
            # collector.
            state.response = ANSWERED
        now = self.clock()
        region = state.region
        if region >= 0:
            cells = self.running.cells
            cells[region + BUSY] += now
            if state.owns_region:
                state.region = OVER
                cells[region + START] = 0
                self.running.free.append(region)
        elif region == NOWHERE:
            state.region = OVER
            self.board.leave(now)
            if state.recorded:
                self.board.cells[_BEYOND_TABLE_ANSWERED] -= 1

    def described(self, state: RequestState) -> str:
        """Return what the scoreboard says of a running request, and for how long it has been running."""
        age = (self.clock() - state.start) / _SECOND
        for request in read_running(self.board.view(0).data):
            if FIRST + request.region * STEP == state.region:
                return f"{request}, {age:.1f} s, {request.phase.name.lower()}"
        return f"a request, {age:.1f} s"

    def measure_cpu(self, state: RequestState) -> None:
        """Measure the CPU time of a request from now on; here it is not."""

    def counts_cpu_alone(self, _: RequestState) -> bool:
        """Count CPU time of a request, and return whether nothing else is seldom about it; here it is not counted."""
        return False

    def look_at_rate(self) -> None:
        """Look how many requests there are, about once a second; here nothing depends on it."""

    def forget_parent(self) -> None:
        """Stop counting, in a child forked by the application during a request: request and board are the parent's."""
        self.board.cells = memoryview(bytearray(SIZE)).cast("q")
        self.running.look_at(self.board.cells)
        self.record = self.record_stream = self.inc = self.observe = _count_nothing
        self.rows = {}

    def left_unanswered(self, state: RequestState, reason: UnansweredReason) -> None:
        """Count a request that ends without a status line although the worker continues."""
        route = self.named_route(state)
        self.entered(state)
        self.inc(REQUESTS_UNANSWERED, (route, reason))

    def cut_off(self, state: RequestState, cause: ExitCause) -> None:
        """Count a request as lost because the worker, which has to end, cuts it off without an answer."""
        route = self.named_route(state)
        self.entered(state)
        self.inc(REQUESTS_LOST, (cause, route))

    def entered(self, state: RequestState) -> None:
        """Note that the request is counted: if the worker is killed from here on, the master must not count it."""
        state.recorded = True
        if state.region >= 0:
            self.running.cells[state.region + PHASE] = _CLOSING
        elif state.region == NOWHERE:
            self.board.cells[_BEYOND_TABLE_ANSWERED] += 1

    def observe_proxy(self, req: Any, environ: Any) -> None:
        """Observe the time since the proxy's stamp, where there is one and the peer is trusted."""
        if ("HTTP_X_REQUEST_START" in environ or "HTTP_X_QUEUE_START" in environ) and req.peer_addr in self._trusted:
            wait = proxy_wait(environ)
            if wait is not None:
                self.observe(REQUEST_QUEUE_SECONDS, (QueueSource.PROXY,), wait)

    def raised(self, req: Any, state: RequestState, error_type: str) -> None:
        """Count an exception that left the application: the one that is being handled."""
        self.inc(FAILED_REQUESTS, (Recorder.known_method(req.method), self.named_route(state), error_type))
        if self.kind_doubt is not None:
            self.kind_doubt(sys.exc_info()[1])

    def refused(self, error: BaseException) -> None:
        """Count a request that never reached the application, by what was wrong with it."""
        self.inc(INVALID_REQUESTS, (type(error).__name__,))

    def disconnected(self, state: RequestState, phase: DisconnectPhase) -> None:
        """Count a client that left in ``phase``, once a request: if it left during the request, the response is not
        counted.
        """
        if not state.client_left:
            state.client_left = True
            self.inc(CLIENT_DISCONNECTS, (phase,))

    @property
    def aborted(self) -> bool:
        """Whether the worker is ending in its SIGABRT handler, because it sent no heartbeat in time."""
        return bool(self.board.cells[_HINT] == ExitHint.ABORTED)
