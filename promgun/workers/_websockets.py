"""Tells whether an application turned a connection into a websocket by itself.

Under WSGI a library for websockets takes the socket out of ``environ["gunicorn.socket"]`` and sends the status 101 on
it: Gunicorn's response knows nothing of it, and what the application raises or returns afterwards says little.

``accounting`` is the ``RequestAccounting`` of the worker, whose module imports this one.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from promgun.metrics.families.websockets import WEBSOCKET_CONNECTIONS, WEBSOCKET_DURATION_SECONDS
from promgun.metrics.label_values import WebsocketResult
from promgun.store.board import Cell
from promgun.store.request_table import OVER, START
from promgun.workers._request_state import ANSWERED, RequestState

_SWITCHED = b"HTTP/1.1 101"
_SECOND = 1_000_000_000
_OPEN = int(Cell.WEBSOCKETS)


def watch_handshake(environ: Any, state: RequestState, accounting: Any) -> bool:
    """Have the request counted as a websocket if the first thing that is sent on its socket is a 101; return whether
    that is watched. ``state.handshake`` says what was sent.

    The socket gets a class of its own until then, derived from its class; no object stands in front of it, because
    libraries select it, duplicate it, or ask for its type. A library that writes to the descriptor is not seen.
    """
    sock = environ.get("gunicorn.socket")
    if str(environ.get("HTTP_UPGRADE", "")).lower() != "websocket" or sock is None:
        return False
    kind = getattr(sock, "promgun_watched", type(sock))

    def sent(sender: Any, data: Any) -> None:
        sender.__class__ = sock.__class__ = kind
        with suppress(TypeError):
            state.handshake = bytes(memoryview(data)[: len(_SWITCHED)]) == _SWITCHED
        if state.handshake:
            # Before it is sent: a worker may be killed meanwhile.
            opened(accounting, state, environ)

    class Watched(kind):  # type: ignore[misc, valid-type] # any class of sockets
        """A socket that tells what is sent on it first."""

        __slots__ = ()
        promgun_watched = kind

        def send(self, data: Any, *args: Any) -> Any:
            sent(self, data)
            return kind.send(self, data, *args)

        def sendall(self, data: Any, *args: Any) -> Any:
            sent(self, data)
            return kind.sendall(self, data, *args)

    try:
        sock.__class__ = Watched
    except TypeError:
        # A class of sockets with another layout, or one written in C.
        return False
    state.handshake = False
    return True


def opened(accounting: Any, state: RequestState, environ: Any) -> None:
    """Count a request as an accepted websocket, just before 101 is sent. It is no request any longer: it does not run,
    is not busy, and nothing that is sent or raised from now on is counted.
    """
    state.handshake = True
    state.carrier = environ
    route = accounting.named_route(state)
    accounting.entered(state)
    accounting.inc(WEBSOCKET_CONNECTIONS, (route, WebsocketResult.ACCEPTED))
    cells = accounting.board.cells
    # From the first one on the worker shows how many there are.
    cells[_OPEN] = (cells[_OPEN] or 1) + 1
    region = state.region
    if region >= 0:
        accounting.running.cells[region + START] = 0
        state.owns_region = accounting.regions_are_own
    accounting.closed(state)
    state.region = OVER
    # Tells follow_requests that the region is not the request's any longer.
    state.response = None


def closed(accounting: Any, state: RequestState) -> int:
    """Count the end of a websocket; return the region that it has, ``OVER``."""
    accounting.board.cells[_OPEN] -= 1
    _observe(accounting, state)
    state.response = ANSWERED
    return OVER


def count_unseen(accounting: Any, state: RequestState) -> None:
    """Count a websocket of which nothing was known until it ended."""
    route = accounting.named_route(state)
    accounting.entered(state)
    accounting.inc(WEBSOCKET_CONNECTIONS, (route, WebsocketResult.ACCEPTED))
    _observe(accounting, state)


def _observe(accounting: Any, state: RequestState) -> None:
    seconds = (accounting.clock() - state.start) / _SECOND
    accounting.observe(WEBSOCKET_DURATION_SECONDS, (state.route,), seconds)
