"""Has Gunicorn do once what it does anew for each request or connection; ``--no-config-cache`` turns this off as well.

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
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gunicorn import util
from gunicorn.http.wsgi import WSGIErrorsWrapper
from gunicorn.workers.gthread import TConn

#: Seconds from the beginning of a second for which its date is reused. ``formatdate`` rounds to microseconds, so that
#: the last of a second may be shown as the next.
_SAME_DATE = 0.999


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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Shortcut:
    """What replaces ``owner.name``, if the names in the code of that function are ``names``."""

    owner: Any
    name: str
    names: frozenset[str]
    replace: Callable[[Any], Any]

    @property
    def applies(self) -> bool:
        """Whether the function is the one that the shortcut was written for."""
        code = getattr(getattr(self.owner, self.name, None), "__code__", None)
        return code is not None and frozenset(code.co_names) == self.names


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
        TConn,
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
)


def take_shortcuts() -> None:
    """Put every shortcut that applies in place, in this process, for good."""
    for shortcut in SHORTCUTS:
        if shortcut.applies:
            setattr(shortcut.owner, shortcut.name, shortcut.replace(getattr(shortcut.owner, shortcut.name)))
