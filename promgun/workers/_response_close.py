"""What replaces ``close`` of Gunicorn's ``Response``: the answer is counted, then the response is closed.

``close`` sends the last bytes, and a worker is likely to be killed in that system call: an answer that the client gets
has to be counted by then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from promgun.store.board import Cell
from promgun.store.request_table import NOWHERE, PHASE, Phase
from promgun.workers._accounting import RequestAccounting
from promgun.workers._gunicorn_shortcuts import names_in

#: A method ``close``, or a function that counts a response.
Close = Callable[[Any], None]

#: In ``Response.close`` (gunicorn 25.3 to 27.0).
_NAMES_OF_CLOSE = frozenset({"headers_sent", "send_headers", "chunked", "util", "write_chunk", "sock"})
_SECOND = 1_000_000_000
_CLOSING = int(Phase.CLOSING)
_BEYOND_TABLE_ANSWERED = int(Cell.BEYOND_TABLE_ANSWERED)


def counted_and_closed(close: Close, count: Close) -> Close:
    """Return a function that calls ``count``, then ``close``."""

    def close_response(response: Any) -> None:
        count(response)
        close(response)

    return close_response


def answered_and_closed(  # noqa: C901 - see below
    accounting: RequestAccounting, close: Close, count: Close
) -> Close:
    """Return ``close``, the method of Gunicorn's ``Response``, with ``answered`` in front of it.

    ``count`` counts what is seldom: a stream, a file or no body in the answer, one in the request.
    """
    running, board, clock, named_route = accounting.running, accounting.board, accounting.clock, accounting.named_route
    counts_cpu_alone = accounting.counts_cpu_alone
    smallest, shortest, size_bounds, duration_bounds, fine_bounds = accounting.bounds
    # Gunicorn's own sends what is left: the head, or the end of a chunked body.
    may_have_nothing_to_send = names_in(close) == _NAMES_OF_CLOSE

    # answered and Recorder.record written out for a request without a body: three calls less.
    def close_response(response: Any) -> None:  # noqa: C901 - same
        try:
            req = response.req
            state = req.promgun
            status = response.status_code
        except AttributeError:
            # The request was not begun here, or the application never called start_response: close fails.
            close(response)
            return
        if state.recorded:
            close(response)
            return
        sent = response.sent
        if not sent or (state.has_more and not counts_cpu_alone(state)):
            count(response)
            close(response)
            return
        seconds = (clock() - state.start) / _SECOND
        if state.carrier is not None:
            named_route(state)
        state.recorded = True
        # If the worker is killed from here on, the master must not count a lost request: the answer is out or on its
        # way.
        region = state.region
        if region >= 0:
            running.cells[region + PHASE] = _CLOSING
        elif region == NOWHERE:
            board.cells[_BEYOND_TABLE_ANSWERED] += 1
        try:
            # A child of the application's has others.
            row = accounting.rows[req.method, state.route, status]
        except KeyError:
            accounting.record(req.method, state.route, status, seconds, 0, sent)
        else:
            cells, small, durations, seconds_sum, sizes_in, _, sizes_out, out_sum, fine_cells, fine = row
            if sent > smallest:
                cells[sizes_out + bisect_left(size_bounds, sent)] += 1.0
                small = sizes_in
            cells[out_sum] += sent
            cells[small] += 1.0
            cells[seconds_sum] += seconds
            if seconds <= shortest:
                cells[durations] += 1.0
                fine_cells[fine] += 1.0
            else:
                cells[durations + bisect_left(duration_bounds, seconds)] += 1.0
                fine_cells[fine + bisect_left(fine_bounds, seconds)] += 1.0
        if may_have_nothing_to_send and response.headers_sent and not response.chunked:
            return
        close(response)

    return close_response
