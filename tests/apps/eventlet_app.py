"""A WSGI application that shows from inside how an eventlet worker treats it."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import eventlet
import eventlet.wsgi
from eventlet import patcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PATCHED_AT_IMPORT = patcher.is_monkey_patched("socket") and patcher.is_monkey_patched("thread")

if "DEFAULT_TIMEOUT" in os.environ:
    socket.setdefaulttimeout(float(os.environ["DEFAULT_TIMEOUT"]))

if "USE_HUB_AT_IMPORT" in os.environ:
    eventlet.sleep(0)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer by path; anything unknown gets the worker's pid."""
    query = parse_qs(environ["QUERY_STRING"])
    path = environ["PATH_INFO"]
    if path == "/file":
        return send_file(environ, start_response, query)
    if path == "/handled":
        environ["gunicorn.socket"].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
        eventlet.wsgi.WSGI_LOCAL.already_handled = True
        return []
    body = str(os.getpid())
    if path == "/sleep":
        environ["wsgi.errors"].write("sleeping\n")
        environ["wsgi.errors"].flush()
        time.sleep(float(query["seconds"][0]))
    elif path == "/patched":
        body = str(PATCHED_AT_IMPORT)
    elif path == "/upload":
        body = str(len(environ["wsgi.input"].read()))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]


def send_file(
    environ: dict[str, Any], start_response: Callable[..., Any], query: dict[str, list[str]]
) -> Iterable[bytes]:
    """Send the file ``path`` from ``offset`` through the server's own file wrapper."""
    file = open(query["path"][0], "rb")  # noqa: SIM115  # the server closes it
    file.seek(int(query.get("offset", ["0"])[0]))
    length = query["length"][0]
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", length)])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
    return wrapped
