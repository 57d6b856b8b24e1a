"""Lets a process make one change of its files at a time, also when a signal handler interrupts a change; and tells
whether an update of a number needs a lock.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock


class ExclusiveChange:
    """A reentrant lock that refuses to begin a change inside another change of the same thread.

    Code that has to be fast does what :meth:`begin` does itself: it takes :attr:`lock`, raises :meth:`refusal` while
    :attr:`inside` is true, and sets it around its change.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.inside = False

    @staticmethod
    def refusal() -> OSError:
        """Return the error for a signal handler or a GC callback that interrupted a change: it has to try again."""
        return OSError(errno.EAGAIN, "the store is being changed by the interrupted code")

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Change files in this block; raises ``OSError`` (EAGAIN) when this thread is already inside such a block."""
        with self.lock:
            if self.inside:
                raise self.refusal()
            self.inside = True
            try:
                yield
            finally:
                self.inside = False


def has_gil() -> bool:
    """Whether the interpreter currently runs with the GIL (PEP 703)."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
