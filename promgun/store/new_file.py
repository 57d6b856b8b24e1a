"""What each new file of the store needs: its owner, and its space on the disk."""

from __future__ import annotations

import errno
import os


# No named tuple: making one takes ten times as long (CPython 3.11), and each start waits for it.
class Owner:
    """The owner of a file in the store; ``None`` leaves it to whoever makes it."""

    __slots__ = ("gid", "uid")

    def __init__(self, uid: int | None = None, gid: int | None = None) -> None:
        self.uid = uid
        self.gid = gid

    def take(self, fd: int) -> None:
        """Give an open file to this owner, if it is another user and this process may."""
        if (self.uid, self.gid) != (None, None) and os.geteuid() == 0:
            os.fchown(fd, -1 if self.uid is None else self.uid, -1 if self.gid is None else self.gid)


def reserve(fd: int, size: int) -> None:
    """Allocate ``size`` bytes of the file's disk space; raises ``OSError`` (ENOSPC, EDQUOT …) when that fails.

    A sparse mapping kills its process with SIGBUS when the file system is full.
    """
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        # musl and some file systems do not emulate posix_fallocate: write the zeros ourselves.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        have = os.fstat(fd).st_size
        while have < size:
            have += os.pwrite(fd, bytes(min(size - have, 1 << 16)), have)


def reserve_range(fd: int, offset: int, size: int) -> None:
    """Allocate ``size`` bytes from ``offset`` on without changing their content; raises ``OSError``."""
    try:
        os.posix_fallocate(fd, offset, size)
    except OSError as error:
        # musl and some file systems do not emulate it: write the present content, so that the pages are allocated.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.pwrite(fd, os.pread(fd, size, offset).ljust(size, b"\0"), offset)
