"""Has Gunicorn do once what it does anew for each request or connection; ``--no-server-shortcuts`` turns this off.

Each shortcut replaces one function of Gunicorn's in a worker that has booted, and does what that function does: it
returns and sends the same. It is only put in place of the function that it was written for, which is recognised by the
names in its code (the same in gunicorn 25.3 to 27.0). A function that a later version, a hook or a tool for tracing has
changed stays as it is. Nanoseconds are those of CPython 3.11 and 3.13.
"""

from __future__ import annotations

import logging
import math
import select
import selectors
import socket
import sys
from collections.abc import Callable
from typing import Any

from gunicorn import util
from gunicorn.http.wsgi import WSGIErrorsWrapper
from gunicorn.sock import BaseSocket
from gunicorn.workers.base import Worker
from gunicorn.workers.workertmp import WorkerTmp

#: Seconds from the beginning of a second for which its date is reused. ``formatdate`` rounds to microseconds, so that
#: the last of a second may be shown as the next.
_SAME_DATE = 0.999
_NAMES_OF_HEARTBEAT = frozenset({"time", "monotonic", "os", "utime", "_tmp", "fileno"})
_NAMES_OF_DELEGATION = frozenset({"getattr", "sock"})


def _remember_date(http_date: Callable[..., str]) -> Callable[..., str]:
    """Format the date of responses once a second: 4,000 to 5,000 ns for each response."""
    clock = util.time
    known = 0.0, 0.0, ""

    def http_date_of_second(timestamp: float | None = None) -> str:
        nonlocal known
        if timestamp is not None:
            return http_date(timestamp)
        now = clock.time()
        # One tuple, because threads replace it.
        begin, end, text = known
        if begin <= now < end:
            return text
        text = http_date(now)
        second = float(int(now))
        if now < second + _SAME_DATE:
            known = second, second + _SAME_DATE, text
        return text

    return http_date_of_second


def _pass_plain_paths(unquote: Callable[[Any], str]) -> Callable[[Any], Any]:
    """Decode only the paths that need it: 300 to 600 ns for each request."""

    def unquote_to_wsgi_str(string: Any) -> Any:
        if string.__class__ is str and "%" not in string and string.isascii():
            return string
        return unquote(string)

    return unquote_to_wsgi_str


def _know_error_log(_: Callable[..., None]) -> Callable[..., None]:
    """Look the error log up once; its handlers and their streams still each time: 500 to 900 ns for each request."""
    error_log = logging.getLogger("gunicorn.error")

    def __init__(self: Any, cfg: Any) -> None:  # noqa: N807 - its name in tracebacks and profiles
        streams = []
        handlers = error_log.handlers
        if cfg.errorlog == "-":
            streams.append(sys.stderr)
            handlers = handlers[1:]
        streams += [handler.stream for handler in handlers if hasattr(handler, "stream")]
        self.streams = streams

    return __init__


def _wait_by_poll(wait_for_data: Callable[..., bool]) -> Callable[..., bool]:
    """Wait for the first bytes of a connection by one system call where a selector takes four, and a descriptor: 10,000
    to 20,000 ns for each connection of gthread.
    """
    if selectors.DefaultSelector is not getattr(selectors, "EpollSelector", None) or not hasattr(select, "poll"):
        return wait_for_data
    readable, invalid = select.POLLIN, select.POLLNVAL

    def wait_for_data_by_poll(self: Any, timeout: float | None) -> bool:
        if self.data_ready:
            return True
        poll = select.poll()
        try:
            poll.register(self.sock, readable)
            events = poll.poll(None if timeout is None else max(0, math.ceil(timeout * 1000)))
        except (OSError, ValueError):
            # Socket closed, as in Gunicorn's method
            return False
        if not events or events[0][1] & invalid:
            return False
        self.data_ready = True
        return True

    return wait_for_data_by_poll


def _accept_as_it_is(accept: Callable[..., None]) -> Callable[..., None]:
    """Leave out three system calls for each connection of sync: Python makes what it accepts neither inheritable
    (PEP 446) nor, on Linux and without a default timeout, non-blocking.
    """
    if sys.platform != "linux":
        return accept

    def accept_as_it_is(self: Any, listener: Any) -> None:
        client, addr = listener.accept()
        if client.__class__ is not socket.socket:
            util.close_on_exec(client)
            client.setblocking(1)
        elif client.gettimeout() is not None:
            client.settimeout(None)
        self.handle(listener, client, addr)

    return accept_as_it_is


def may_pause(notify: Callable[[], None]) -> bool:
    """Whether ``notify``, a worker's method, need not be called for each request: a call is a system call, and the
    master looks at its outcome about once a second. It has to be Gunicorn's own.
    """
    return getattr(notify, "__func__", None) is Worker.notify and names_in(WorkerTmp.notify) == _NAMES_OF_HEARTBEAT


def remember_name(listener: Any) -> None:
    """Have ``getsockname`` of one of Gunicorn's listening sockets, which is bound for good, answered without a system
    call, and ``accept`` found at once: 1,000 to 4,000 ns for each request of sync and each connection of gthread.
    """
    if isinstance(listener, BaseSocket) and names_in(BaseSocket.__getattr__) == _NAMES_OF_DELEGATION:
        name = listener.getsockname()
        vars(listener).setdefault("getsockname", lambda: name)
        vars(listener).setdefault("accept", listener.sock.accept)


def names_in(function: Any) -> frozenset[str] | None:
    """Return the names in the code of a function, ``None`` for what has no code of Python's."""
    code = getattr(function, "__code__", None)
    return None if code is None else frozenset(code.co_names)


class Shortcut:
    """What replaces the function ``name`` of ``place``, if the names in the code of that function are ``names``.

    A ``place`` in a module that not every worker loads is written as ``module:class``.
    """

    __slots__ = ("name", "names", "place", "replace")

    def __init__(self, place: Any, name: str, names: frozenset[str], replace: Callable[[Any], Any]) -> None:
        self.place = place
        self.name = name
        self.names = names
        self.replace = replace

    @property
    def owner(self) -> Any:
        """What has the function; ``None`` while its module is not loaded."""
        if not isinstance(self.place, str):
            return self.place
        module, _, name = self.place.partition(":")
        return getattr(sys.modules.get(module), name, None)

    @property
    def applies(self) -> bool:
        """Whether the function is the one that the shortcut was written for."""
        return names_in(getattr(self.owner, self.name, None)) == self.names


SHORTCUTS = (
    Shortcut(util, "http_date", frozenset({"time", "email", "utils", "formatdate"}), _remember_date),
    Shortcut(
        util,
        "unquote_to_wsgi_str",
        frozenset({"urllib", "parse", "unquote_to_bytes", "decode"}),
        _pass_plain_paths,
    ),
    Shortcut(
        WSGIErrorsWrapper,
        "__init__",
        frozenset(
            {"logging", "getLogger", "handlers", "streams", "errorlog", "append", "sys", "stderr", "hasattr", "stream"}
        ),
        _know_error_log,
    ),
    Shortcut(
        "gunicorn.workers.gthread:TConn",
        "wait_for_data",
        frozenset(
            {
                "data_ready",
                "selectors",
                "DefaultSelector",
                "register",
                "sock",
                "EVENT_READ",
                "select",
                "OSError",
                "ValueError",
                "close",
            }
        ),
        _wait_by_poll,
    ),
    Shortcut(
        "gunicorn.workers.sync:SyncWorker",
        "accept",
        frozenset({"accept", "setblocking", "util", "close_on_exec", "handle"}),
        _accept_as_it_is,
    ),
)


def take_shortcuts() -> None:
    """Put every shortcut that applies in place, in this process, for good."""
    for shortcut in SHORTCUTS:
        if shortcut.applies:
            setattr(shortcut.owner, shortcut.name, shortcut.replace(getattr(shortcut.owner, shortcut.name)))
