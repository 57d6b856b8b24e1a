"""Tells whether an application turned a connection into a websocket by itself.

Under WSGI a library for websockets takes the socket out of ``environ["gunicorn.socket"]`` and sends the status 101 on
it: Gunicorn's response knows nothing of it, and what the application raises or returns afterwards says little.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from promgun.store.board import Cell
from promgun.store.request_table import PHASE, STATUS_SHIFT, SWITCHING_PROTOCOLS, Phase, RunningRequests
from promgun.workers._request_state import RequestState

_SWITCHED = b"HTTP/1.1 101"
_WEBSOCKETS = int(Cell.WEBSOCKETS)
_OPEN = Phase.APPLICATION | SWITCHING_PROTOCOLS << STATUS_SHIFT


def watch_handshake(environ: Any, state: RequestState, running: RunningRequests) -> None:
    """Note in ``state.handshake`` whether the first thing sent on the socket of a request for a websocket is a 101, and
    write that status to the request's region: if the worker is killed, the master knows. It counts as open from then
    on.

    The socket gets a class of its own until then, derived from its class; no object stands in front of it, because
    libraries select it, duplicate it, or ask for its type. A library that writes to the descriptor is not seen.
    """
    sock = environ.get("gunicorn.socket")
    if str(environ.get("HTTP_UPGRADE", "")).lower() != "websocket" or sock is None:
        return
    kind = getattr(sock, "promgun_watched", type(sock))

    def sent(sender: Any, data: Any) -> None:
        sender.__class__ = sock.__class__ = kind
        with suppress(TypeError):
            state.handshake = bytes(memoryview(data)[: len(_SWITCHED)]) == _SWITCHED
        if not state.handshake:
            return
        count_open(environ, state, running)
        if state.region >= 0:
            running.cells[state.region + PHASE] = _OPEN

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
        return
    state.handshake = False


def count_open(environ: Any, state: RequestState, running: RunningRequests) -> None:
    """Count a request as an open websocket, until its route is asked for, for the last time."""
    cells = running.cells
    # From the first one on the worker shows how many there are.
    cells[_WEBSOCKETS] = cells[_WEBSOCKETS] or 1
    cells[_WEBSOCKETS] += 1
    state.holds_websocket = True
    state.carrier = environ
