"""The names in a directory, read again and again: listed anew only when one came, went or was given to another file.

To list the slots of a hundred workers takes 75 µs, one look at the directory's time 1 µs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

#: Nanoseconds after which a change of a directory is sure to have changed its time: that moves in ticks of up to 10 ms.
SETTLED_NS = 100_000_000

#: Names, each with its inode.
Entries = tuple[tuple[str, int], ...]


class FolderListing:
    """The listing of one directory, used from one thread at a time. ``clock`` is Unix time in nanoseconds."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._state: tuple[int, int, int] | None = None
        self._entries: Entries = ()

    def read(self, folder_fd: int) -> Entries:
        """Return the entries of an open directory, the same object as long as none changed; raises ``OSError``."""
        status = os.fstat(folder_fd)
        # The time of change, which nobody can set, unlike that of modification.
        state = status.st_dev, status.st_ino, status.st_ctime_ns
        if state != self._state:
            # Another change in the same tick of the kernel's clock leaves the time as it is.
            is_settled = status.st_ctime_ns < self._clock() - SETTLED_NS
            with os.scandir(folder_fd) as entries:
                self._entries = tuple([(entry.name, entry.inode()) for entry in entries])
            self._state = state if is_settled else None
        return self._entries
