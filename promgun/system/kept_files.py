"""Keeps descriptors open between readings: to open a file and to close it takes longer than to read it.

Whoever reads through a kept descriptor makes sure that it still is the file that is meant. Beyond a third of what the
process may have open, files are opened for each reading.
"""

from __future__ import annotations

import os
import resource
import weakref
from collections.abc import Hashable
from contextlib import suppress

#: The most that are kept, whatever the limit: three for each of 341 workers.
MOST_KEPT = 1024
_SHARE = 3


def most_kept() -> int:
    """Return how many descriptors this process may keep (RLIMIT_NOFILE)."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_KEPT if allowed == resource.RLIM_INFINITY else min(MOST_KEPT, allowed // _SHARE)


class KeptFiles:
    """Descriptors by key. Those that one reading does not ask for are closed at its end (:meth:`close_unused`); all are
    closed when the object is gone.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most_kept() if most is None else most
        self._open: dict[Hashable, int] = {}
        self._used: set[Hashable] = set()
        weakref.finalize(self, _close_all, self._open)

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: Hashable) -> int | None:
        """Return the descriptor that is kept under this key."""
        fd = self._open.get(key)
        if fd is not None:
            self._used.add(key)
        return fd

    def keep(self, key: Hashable, fd: int) -> bool:
        """Keep a descriptor; return false where there is no room for it: then the caller closes it."""
        if len(self._open) >= self._most or key in self._open:
            return False
        self._open[key] = fd
        self._used.add(key)
        return True

    def drop(self, key: Hashable) -> None:
        """Close what is kept under this key."""
        self._used.discard(key)
        fd = self._open.pop(key, None)
        if fd is not None:
            _close(fd)

    def close_unused(self) -> None:
        """Close what nobody has asked for since the last call."""
        if len(self._used) < len(self._open):
            for key in self._open.keys() - self._used:
                self.drop(key)
        self._used.clear()


def _close_all(files: dict[Hashable, int]) -> None:
    while files:
        _close(files.popitem()[1])


def _close(fd: int) -> None:
    with suppress(OSError):
        os.close(fd)
