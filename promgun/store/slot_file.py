"""The file of a slot as its owner has it: the scoreboard, then the rows; of fixed length and mapped once.

Pages are allocated when they are first used, so places never move, and no mapping is ever replaced.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from typing import TYPE_CHECKING

from promgun.store.board import SIZE as BOARD_SIZE
from promgun.store.new_file import reserve_range
from promgun.store.row_file import RowFile

if TYPE_CHECKING:
    from promgun.store.healing import Healing

#: 8 MiB hold more than 20,000 label sets; unused pages take address space only.
FILE_SIZE = 1 << 23
MASTER_FILE_SIZE = 1 << 20


class SlotFile:
    """A mapped slot file; raises ``OSError`` when it cannot be had, and then leaves at most an empty file."""

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            if status.st_size != FILE_SIZE:
                os.ftruncate(fd, FILE_SIZE)
            reserve_range(fd, 0, BOARD_SIZE)
            self._map(fd, path, status)
        finally:
            # Python's mapping has a descriptor of its own.
            os.close(fd)

    def _map(self, fd: int, path: str, status: os.stat_result) -> None:
        mapping = mmap.mmap(fd, FILE_SIZE)
        self.path = path
        self._mapping = mapping
        self.identity = (status.st_dev, status.st_ino)
        self.memory = memoryview(mapping)
        reserved = data_end(fd, BOARD_SIZE)
        self.rows = RowFile(self.memory, BOARD_SIZE, self._reserve, reserved=reserved)

    def heal(self) -> Healing:
        """Make the file again if it was removed, replaced or cut. Hold the store's lock; never raises.

        Places stay valid unless the file was cut: then :attr:`rows` is a different object with the remaining rows, the
        content of the board and of other rows is lost, and places have to be asked for anew.
        """
        from promgun.store.healing import Harm, MappedFile, heal  # noqa: PLC0415 - upkeep, which calls this, has loaded it

        healing = heal(MappedFile(self.path, self.identity, FILE_SIZE, self.rows.reserved, self._mapping))
        self.identity = healing.identity
        if healing.harm is Harm.SHRUNK and not healing.error:
            self.rows = RowFile(self.memory, BOARD_SIZE, self._reserve, reserved=self.rows.reserved)
        return healing

    def _reserve(self, offset: int, size: int) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != self.identity:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), self.path)
            reserve_range(fd, offset, size)
        finally:
            os.close(fd)


def data_end(fd: int, start: int, allocated: int = FILE_SIZE + 1) -> int:
    """Return the end of the data from ``start`` on, before a hole (lseek(2), SEEK_HOLE); ``allocated`` are the bytes
    that the file takes, if they are known.
    """
    end = start
    while True:
        try:
            if allocated <= (hole := os.lseek(fd, end, os.SEEK_HOLE)):
                # All bytes are in front of the first hole: there is no data behind it.
                return hole
            data = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return end
        if end >= FILE_SIZE:
            return FILE_SIZE
