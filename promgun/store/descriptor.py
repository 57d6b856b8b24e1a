"""A descriptor that is held for long, in a process whose application may close all descriptors and reuse the number."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

#: Device and inode of a file.
Identity = tuple[int, int]
_COMMON = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Descriptor:
    """A descriptor of one file or folder; nothing is done to the number once another file has it (``os.closerange``,
    then an ``open`` of the application's).

    ``lock`` is the lock (flock) that is held on it, and is taken again with it.
    """

    def __init__(self, fd: int, *, lock: int = 0) -> None:
        self.fd: int | None = fd
        status = os.fstat(fd)
        self.identity = identity_of(status)
        self._access = os.O_DIRECTORY if stat.S_ISDIR(status.st_mode) else os.O_RDWR
        self._lock = lock

    @property
    def is_ours(self) -> bool:
        """Whether the number is open and still means the file."""
        return self._present() == self.identity

    def _present(self) -> Identity | None:
        try:
            return None if self.fd is None else identity_of(os.fstat(self.fd))
        except OSError:
            return None

    def of(self, path: Path) -> int:
        """Return the descriptor, opened anew by the file's path if it was closed; raises ``OSError``."""
        if self.fd is None or not self.is_ours:
            self._open_again(path)
        assert self.fd is not None  # noqa: S101 - just opened
        return self.fd

    def _open_again(self, path: Path) -> None:
        fd = os.open(path, self._access | _COMMON)
        try:
            self._check(fd, path)
        except BaseException:
            os.close(fd)
            raise
        self.fd = fd

    def _check(self, fd: int, path: Path) -> None:
        if identity_of(os.fstat(fd)) != self.identity:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        if self._lock:
            fcntl.flock(fd, self._lock | fcntl.LOCK_NB)

    def replace(self, fd: int) -> None:
        """Go on with another open file: under the same number, if that is still ours."""
        identity = identity_of(os.fstat(fd))
        # The number may mean the new file already: see ``healing``.
        is_ours = self._present() in (self.identity, identity)
        self.identity = identity
        if is_ours and self.fd is not None:
            os.dup2(fd, self.fd, inheritable=False)
            os.close(fd)
        else:
            self.fd = fd

    def close(self) -> None:
        """Close it, if it is open and ours."""
        is_ours, fd, self.fd = self.is_ours, self.fd, None
        if is_ours and fd is not None:
            os.close(fd)


def identity_of(status: os.stat_result) -> Identity:
    """Return device and inode."""
    return status.st_dev, status.st_ino
