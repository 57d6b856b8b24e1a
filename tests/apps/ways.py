"""An application with the ways in which a request can end that the probe does not have."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import probe  # type: ignore[import-not-found] # it lies beside this file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: Seconds that a forked child gets to leave.
CHILD_PATIENCE = 2.5


class SlowClose:
    """An iterable whose ``close`` waits at a gate, after the last byte is out."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __iter__(self) -> Iterator[bytes]:
        yield b"ok"

    def close(self) -> None:
        """Leave a file, then wait until it is gone."""
        waiting = Path(f"{self._name}.waiting")
        waiting.touch()
        while waiting.exists():
            time.sleep(0.02)


class FailingBody:
    """An iterable that cannot be iterated."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __iter__(self) -> Iterator[bytes]:
        raise probe.ERRORS[self._name]("asked for")


def body(_environ: WSGIEnvironment, start_response: StartResponse, name: str) -> Iterable[bytes]:
    """Set a status, and raise when the body is asked for."""
    start_response("200 OK", [])
    return FailingBody(name)


def close(_environ: WSGIEnvironment, start_response: StartResponse, name: str) -> Iterable[bytes]:
    """Answer whole, then work on in ``close``."""
    start_response("200 OK", [("Content-Length", "2")])
    return SlowClose(name)


def websocket(environ: WSGIEnvironment, start_response: StartResponse, answers: str = "") -> Iterable[bytes]:
    """Serve a websocket on the connection itself until the client leaves, as simple-websocket does under Gunicorn."""
    connection: Any = environ["gunicorn.socket"]
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    while connection.recv(1024):
        pass
    if answers:
        return cast("Iterable[bytes]", probe.ok(environ, start_response))
    raise StopIteration


def fork(environ: WSGIEnvironment, start_response: StartResponse, *_: str) -> Iterable[bytes]:
    """Fork a child that leaves by ``sys.exit``, and answer when it is gone."""
    child = os.fork()
    if not child:
        sys.exit(0)
    end = time.monotonic() + CHILD_PATIENCE
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return cast("Iterable[bytes]", probe.ok(environ, start_response))


def unread(_environ: WSGIEnvironment, start_response: StartResponse, *_: str) -> Iterable[bytes]:
    """Set a status, and raise what Gunicorn takes for a client that left before anything is sent."""
    start_response("200 OK", [])
    raise BrokenPipeError("asked for")


def drip(_environ: WSGIEnvironment, start_response: StartResponse, seconds: str) -> Iterator[bytes]:
    """Send a byte now and then for so long."""
    start_response("200 OK", [])
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        yield b"x"
        time.sleep(0.1)


def dam(_environ: WSGIEnvironment, start_response: StartResponse, name: str) -> Iterator[bytes]:
    """Set a status, and wait at a gate before the first byte."""
    start_response("200 OK", [])
    waiting = Path(f"{name}.waiting")
    waiting.touch()
    while waiting.exists():
        time.sleep(0.02)
    yield b"x"


def sink(_environ: WSGIEnvironment, _start_response: StartResponse, name: str) -> Iterable[bytes]:
    """Wait at a gate, then fail."""
    waiting = Path(f"{name}.waiting")
    waiting.touch()
    while waiting.exists():
        time.sleep(0.02)
    raise ValueError("asked for")


ROUTES: dict[str, Callable[..., Iterable[bytes]]] = {
    function.__name__: function for function in (body, close, websocket, fork, unread, drip, dam, sink)
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Call the function that the first part of the path names with the other parts."""
    name, *rest = environ["PATH_INFO"].strip("/").split("/")
    routes: dict[str, Callable[..., Iterable[bytes]]] = {**probe.ROUTES, **ROUTES}
    return routes[name](environ, start_response, *rest)
