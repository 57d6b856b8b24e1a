"""Marks on heartbeats: a worker says that its event loop has requests to serve, and its master reads that.

A heartbeat is the time of modification of an open file (gunicorn 25.3 to 27.0 ``WorkerTmp``), to which its time of
access is set as well. A mark is another time of access: the master asks for both in one system call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

_MARK = 0.0


def marking(tmp: Any) -> Callable[[], None]:
    """Return a function that sends a heartbeat through a worker's ``tmp``, with a mark."""

    def mark() -> None:
        with suppress(OSError, ValueError):
            os.utime(tmp.fileno(), (_MARK, monotonic()))

    return mark


def is_marked(tmp: Any) -> bool:
    """Whether the last heartbeat through a worker's ``tmp`` has a mark; False when that is not known."""
    try:
        return os.fstat(tmp.fileno()).st_atime == _MARK
    except (OSError, ValueError):
        return False
