"""One change of a process's files at a time, also where a signal handler comes into the middle of one."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock


class ExclusiveChange:
    """A lock that a thread may take again, and that tells code which came into a change of the same thread so."""

    def __init__(self) -> None:
        self.lock = RLock()
        self._inside = False

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Change files in this block; raises ``OSError`` (EAGAIN) where a change is being made further up the stack."""
        with self.lock:
            if self._inside:
                # A signal handler or a GC callback came in while this thread was changing a file: not now.
                raise OSError(errno.EAGAIN, "the store is being changed by the interrupted code")
            self._inside = True
            try:
                yield
            finally:
                self._inside = False
