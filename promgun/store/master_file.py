"""The values of a master: private memory, written to a file by ``pwrite``.

A master maps no file: every worker would inherit the mapping, whatever the mode of the folder, and could write to the
file of a process with more rights. The values are written at the end of each pass of the master's loop that an idle
master does not shorten, before a fork and at exit.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

from promgun.store.descriptor import Descriptor

_PAGE = 4096


class MasterFile:
    """Private memory with a file behind it; ``memory`` begins with the ``length`` bytes that the file had, then zeros.

    The file is read only once, when it is opened: only masters can write where it lies. ``fd`` is locked; it is opened
    again by ``path`` if the application closes it.
    """

    def __init__(self, fd: int, size: int, path: Path) -> None:
        self._descriptor = Descriptor(fd, lock=fcntl.LOCK_EX)
        self._path = path
        before = os.pread(fd, size, 0)
        self.length = len(before)
        self._content, self._written = _zeros(size), _zeros(size)
        self._content[: self.length] = self._written[: self.length] = before
        self.memory = memoryview(self._content)

    def flush(self, end: int) -> None:
        """Write what has changed below byte ``end``; raises ``OSError``, and the next call writes it then."""
        fd = self._descriptor.of(self._path)
        for start in range(0, end, _PAGE):
            page = self._content[start : min(start + _PAGE, end)]
            if page != self._written[start : start + len(page)]:
                os.pwrite(fd, page, start)
                self._written[start : start + len(page)] = page

    def close(self) -> None:
        """Close the file in a child, which must not hold it."""
        self._descriptor.close()


def _zeros(size: int) -> mmap.mmap:
    """Return private memory of which each page is taken when it is first written: most are never used, and to clear
    all of them takes a millisecond of a start.
    """
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
