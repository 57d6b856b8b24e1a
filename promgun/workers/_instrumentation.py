"""The two functions that every WSGI request passes: around ``handle_request`` and around the application.

They repeat the bodies of ``RequestAccounting.begin``, ``closed`` and ``application_called``. The application's iterable
is not wrapped, so ``sendfile`` keeps working, and no hook of the user's is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import GeneratorType
from typing import Any

from gunicorn.http.body import LengthReader
from gunicorn.http.wsgi import FileWrapper

from promgun.routes.sources import REPORT, ROUTE
from promgun.store.board import Cell
from promgun.store.request_table import (
    BUSY,
    NOWHERE,
    OVER,
    PHASE,
    START,
    Phase,
    describe,
)
from promgun.workers._accounting import RequestAccounting
from promgun.workers._first_byte import note_head
from promgun.workers._queue_time import forwarded_client
from promgun.workers._request_cpu import CpuAccounting
from promgun.workers._request_state import ANSWERED, CountingReader, FollowedState, file_size, response_in
from promgun.workers._responses import ResponseObserver
from promgun.workers._websockets import closed as websocket_closed
from promgun.workers._websockets import watch_handshake

_SERVED = int(Cell.SERVED)
_BEYOND_TABLE_ANSWERED = int(Cell.BEYOND_TABLE_ANSWERED)
_APPLICATION = int(Phase.APPLICATION)
_WRITING = int(Phase.WRITING)
#: Bytes of a body that is sent at once, whatever the application returned it in.
_SHORT = 1 << 16


def follow_requests(  # noqa: C901, PLR0915 - see below
    handle: Callable[..., Any], worker: Any, accounting: RequestAccounting, responses: ResponseObserver
) -> Callable[..., Any]:
    """Return ``handle``, a ``handle_request`` of Gunicorn's, with the accounting of a request around it.

    ``worker`` tells the shape: ``request_at``, ``only_region``, ``region_of_connection``, ``max_requests``.
    """
    board, running, clock = accounting.board, accounting.running, accounting.clock
    # What CpuAccounting.new_state and LoopAccounting.new_state do is repeated below.
    measures_cpu = isinstance(accounting, CpuAccounting)
    lag = getattr(accounting, "lag", None)
    request_first, only_region, region_of_connection = (
        worker.request_at == 0,
        worker.only_region,
        worker.region_of_connection,
    )
    take, leave, recycled = running.free.pop, running.free.append, worker.max_requests != sys.maxsize
    region_is_own = only_region is None and not region_of_connection
    broken, unfinished = responses.broken, responses.unfinished

    # RequestAccounting.begin and closed are repeated here, which saves about 190 ns a request (CPython 3.11). Both ways
    # to call handle are written out, because CPython 3.11 enters its evaluation loop anew for handle(*args).
    def follow_request(  # noqa: C901, PLR0912, PLR0915 - same
        first: Any, second: Any, third: Any = None, fourth: Any = None
    ) -> Any:
        req = first if request_first else second
        if only_region is not None:
            region = only_region
        elif region_of_connection:
            try:
                region = second.promgun
            except AttributeError:
                region = NOWHERE
        else:
            # The region gets its text when the application is called, some 30 µs from here.
            try:
                region = take()
            except IndexError:
                region = NOWHERE
        state = req.promgun = FollowedState()
        state.start = start = clock()
        state.region = region
        state.response = state.carrier = None
        state.recorded = state.has_more = False
        state.route = ""
        if measures_cpu:
            accounting.unmeasured = left = accounting.unmeasured - 1
            if left <= 0:
                accounting.measure_cpu(state)
                state.has_more = True
        elif lag is not None:
            lag.ran = True
            if not lag.armed:
                lag.arm()
        if region >= 0:
            cells = running.cells
            busy_cell = region + BUSY
            cells[busy_cell] = balance = cells[busy_cell] - start
        else:
            board.enter(start)
        try:
            try:
                reader = req.body.reader
            except AttributeError:
                # The body of an HTTP/2 request has none.
                pass
            else:
                if reader.__class__ is not LengthReader or reader.length:
                    state.body = req.body.reader = CountingReader(reader)
                    state.has_more = True
            result = handle(req, second) if request_first else handle(first, req, third, fourth)
        except BaseException as error:
            if (
                error.__class__ is StopIteration
                and state.recorded
                and error.__context__ is None
                and state.response is not None
                and not state.error_type
            ):
                # The end of a connection of an async worker, after an answer: there is nothing to decide.
                if region_is_own or region < 0:
                    state.region = OVER
            elif broken(req, state, error):
                # handle_error answers it next, which ends the request: a kill until then finds it in its region.
                state.answered_by_handler = True
                state.owns_region = region_is_own and region >= 0
                region = OVER
            elif region_is_own or region < 0:
                # The region may be another request's by the time that something else is counted.
                state.region = OVER
            raise
        else:
            if not state.recorded:
                unfinished(req, state)
            return result
        finally:
            if state.response is not None:
                state.response = ANSWERED
            elif state.handshake:
                region = websocket_closed(accounting, state)
            now = clock()
            if region >= 0:
                # Nobody else writes to this cell meanwhile. It may be in another place, with its value.
                cells = running.cells
                cells[busy_cell] = balance + now
                if region_is_own:
                    cells[region + START] = 0
                    leave(region)
            elif region == NOWHERE:
                board.leave(now)
                if state.recorded:
                    board.cells[_BEYOND_TABLE_ANSWERED] -= 1
            if recycled:
                board.cells[_SERVED] = worker.nr

    return follow_request


def follow_application(  # noqa: C901, PLR0915 - as for follow_requests
    application: Callable[..., Any], accounting: RequestAccounting
) -> Callable[..., Any]:
    """Return ``application``, a WSGI callable, with ``application_called`` in front of it.

    Gunicorn calls it with its own response's ``start_response``. A middleware that was put around the worker's ``wsgi``
    while it serves may pass one of its own: then the response is found in ``environ``. If it is not there either, the
    call is passed on, and the request is counted around ``handle_request`` only.
    """
    running, observe_proxy, whole = accounting.running, accounting.observe_proxy, list
    routes, follow_route, route_known = accounting.routes, accounting.follow_route, accounting.route_known

    # application_called written out, with texts joined as they are and no call without a proxy's stamp: about 620 ns a
    # request (CPython 3.11).
    def call_application(environ: Any, start_response: Any) -> Any:  # noqa: C901, PLR0912, PLR0915 - same
        try:
            response = start_response.__self__
            req = response.req
            state = req.promgun
            state.response = response
        except AttributeError:
            response = response_in(environ)
            if response is None:
                return application(environ, start_response)
            req = response.req
            state = req.promgun
            state.response = response
            # A middleware may call again after a failure.
            state.error_type = ""
        region = state.region
        if region >= 0:
            try:
                client = environ["REMOTE_ADDR"] or forwarded_client(environ)
                request_id = environ["HTTP_X_REQUEST_ID"] if "HTTP_X_REQUEST_ID" in environ else ""  # noqa: SIM401 - get costs a call
                data = f"{req.method}\0{client}\0{request_id}\0{req.path}".encode()
            except (KeyError, UnicodeEncodeError):
                # The environ of a middleware or of another request class may lack the address, or hold text that cannot
                # be encoded.
                get = environ.get
                client = get("REMOTE_ADDR", "") or forwarded_client(environ)
                texts = req.method, client, get("HTTP_X_REQUEST_ID", ""), req.path
                data = "\0".join(map(str, texts)).encode("utf-8", "replace")
            describe(running.cells, region * 8, data, _APPLICATION, state.start)
        if routes.active:
            if routes.patterns is None:
                state.table = running
                environ[REPORT] = state
            else:
                follow_route(environ, state)
        if "HTTP_X_REQUEST_START" in environ or "HTTP_X_QUEUE_START" in environ:
            observe_proxy(req, environ)
        if "HTTP_UPGRADE" in environ and watch_handshake(environ, state, accounting):
            # When the application returns, the region may be another request's.
            region = OVER
        try:
            result = application(environ, start_response)
        except BaseException as error:
            state.carrier = environ
            state.error_type = type(error).__name__
            raise
        if region >= 0:
            running.cells[region + PHASE] = _WRITING
        if ROUTE in environ:
            if environ[ROUTE].__class__ is str:
                route_known(state, environ[ROUTE])
            else:
                # Such as a member of a StrEnum.
                state.carrier = environ
        length = response.response_length
        if result.__class__ is whole:
            # One piece is sent at once, unless it is long. Adding up several would cost each request.
            if length is None:
                if result and (len(result) > 1 or (result[0].__class__ is bytes and len(result[0]) > _SHORT)):
                    note_head(accounting, state, response)
            elif length > _SHORT:
                note_head(accounting, state, response)
        else:
            # The body may name the route while it is sent.
            state.carrier = environ
            if result.__class__ is FileWrapper:
                state.file_size = file_size(result)
                length = None
            if length is None or length > _SHORT or result.__class__ is GeneratorType:
                note_head(accounting, state, response)
        return result

    return call_application
