"""Lets a process make one change of its files at a time, also when a signal handler interrupts a change."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock


class ExclusiveChange:
    """A reentrant lock that refuses to begin a change inside another change of the same thread."""

    def __init__(self) -> None:
        self.lock = RLock()
        self._inside = False

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Change files in this block; raises ``OSError`` (EAGAIN) when this thread is already inside such a block."""
        with self.lock:
            if self._inside:
                # A signal handler or a GC callback interrupted a change of this thread: it has to try again later.
                raise OSError(errno.EAGAIN, "the store is being changed by the interrupted code")
            self._inside = True
            try:
                yield
            finally:
                self._inside = False
