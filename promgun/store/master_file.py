"""The values of a master: private memory that goes out by ``pwrite``.

A master maps nothing: every worker would inherit the mapping, whatever the mode of the folder is, and could write into
the book of a process with more rights. What it has is written at the end of each pass of its loop, before a fork and at
its exit.
"""

from __future__ import annotations

import os

_PAGE = 4096


class MasterFile:
    """Private memory with a file behind it; ``memory`` is what it held last, then zeros.

    The file is read once, when it is opened: only masters write where it lies.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self._content = bytearray(size)
        before = os.pread(fd, size, 0)
        self._content[: len(before)] = before
        self._written = bytes(self._content)
        self.memory = memoryview(self._content)

    def flush(self, end: int) -> None:
        """Write what has changed below byte ``end``; raises ``OSError``, and then writes it next time."""
        for start in range(0, end, _PAGE):
            page = bytes(self._content[start : min(start + _PAGE, end)])
            if page != self._written[start : start + len(page)]:
                os.pwrite(self.fd, page, start)
                self._written = self._written[:start] + page + self._written[start + len(page) :]
