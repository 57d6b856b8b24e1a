"""Opens files that somebody else may have put there: follows no link, never waits, reads a bounded size.

A name is looked up in a directory that is already open, so nobody can exchange the folder in between.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

NOT_REGULAR = "not a regular file"


def open_folder(path: str | os.PathLike[str], *, dir_fd: int | None = None, follow: bool = False) -> int:
    """Return a descriptor of a folder; never waits.

    Raises ``OSError``; without ``follow`` for a symbolic link too (ENOTDIR).
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(path, flags if follow else flags | os.O_NOFOLLOW, dir_fd=dir_fd)


@contextmanager
def opened_folder(path: str | os.PathLike[str], *, follow: bool = False) -> Iterator[int]:
    """Do the same for the time of the block."""
    folder_fd = open_folder(path, follow=follow)
    try:
        yield folder_fd
    finally:
        os.close(folder_fd)


def open_regular(directory_fd: int, name: str, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of a regular file in an open directory, for reading if no ``flags`` are given (open(2)).

    A file that ``O_CREAT`` makes may be read by its user alone.

    Raises ``OSError``: ``FileNotFoundError``, ELOOP for a symbolic link (Linux), EINVAL for what is no regular file.
    """
    # O_NONBLOCK: opening a pipe would wait for its writer
    fd = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=directory_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, NOT_REGULAR, name)
    return fd


def read_regular(directory_fd: int, name: str, limit: int) -> bytes | None:
    """Return the content of a regular file of at most ``limit`` bytes in an open directory, else ``None``."""
    try:
        fd = open_regular(directory_fd, name)
    except OSError:
        return None
    try:
        # Read one byte more than allowed: files in /proc and the like have size 0, and others grow.
        data = os.pread(fd, limit + 1, 0)
        return data if len(data) <= limit else None
    except OSError:
        return None
    finally:
        os.close(fd)
