"""Makes a file that a process has mapped again after it was removed, replaced or cut; the process then goes on in it.

Places in a file never move, and threads hold them. So the new file takes over the addresses of the old: it is written
from what is mapped, renamed into place, and mapped over the old one (mmap(2), MAP_FIXED), with what was counted
meanwhile copied in the same step. No Python code runs in that step, so no update is lost (with the GIL).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import mmap
import os
import stat
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

_MAP_FIXED = 0x10
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Harm(Enum):
    """What happened to a file."""

    NONE = "none"
    #: the file was removed
    VANISHED = "vanished"
    #: another file, or something else, stands in its place
    REPLACED = "replaced"
    #: the file was cut: data behind the cut is lost, and access to it there kills the process (SIGBUS)
    SHRUNK = "shrunk"


class MappedFile(NamedTuple):
    """A mapped file as its owner has it: ``length`` bytes long, of which the first ``used`` (whole pages) are in use.

    ``mapping`` begins at the file's beginning, and may go on behind its end.
    """

    path: str
    identity: tuple[int, int]
    length: int
    used: int
    mapping: mmap.mmap
    mode: int = 0o600


class Healing(NamedTuple):
    """What had happened, and what was done.

    ``identity`` is the device and inode of the file that the process now uses, ``error`` why nothing could be done this
    time.
    """

    harm: Harm
    identity: tuple[int, int]
    error: str = ""


def find_harm(path: str, identity: tuple[int, int], length: int) -> Harm:
    """Return what happened to a mapped file, judged by what its path leads to; never raises."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return Harm.VANISHED
    except OSError:
        return Harm.NONE
    if (status.st_dev, status.st_ino) != identity:
        return Harm.REPLACED
    return Harm.SHRUNK if status.st_size < length else Harm.NONE


def heal(file: MappedFile) -> Healing:
    """Make a harmed file again, under the lock that guards its places; never raises.

    A file that was cut only gets its length back: its owner rewrites the content behind the cut.
    """
    harm = find_harm(file.path, file.identity, file.length)
    identity, error = file.identity, ""
    try:
        if harm is Harm.SHRUNK:
            _lengthen(file)
        elif harm is not Harm.NONE:
            identity = _make_again(file)
    except (OSError, ValueError, ImportError, AttributeError) as problem:
        # ImportError, AttributeError: a Python without ctypes, a C library without these names
        error = str(problem)
    return Healing(harm, identity, error)


def _lengthen(file: MappedFile) -> None:
    fd = os.open(file.path, _OPEN)
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) == file.identity and status.st_size < file.length:
            # Written, not only extended: touching an unallocated page kills the process when the file system is full.
            os.pwrite(fd, bytes(max(0, file.used - status.st_size)), status.st_size)
            os.ftruncate(fd, file.length)
    finally:
        os.close(fd)


def _make_again(file: MappedFile) -> tuple[int, int]:
    temporary = os.path.join(os.path.dirname(file.path), f".new-{os.path.basename(file.path)}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = os.open(temporary, _OPEN | os.O_CREAT | os.O_EXCL, file.mode)
    try:
        os.ftruncate(fd, file.length)
        _write_whole(fd, memoryview(file.mapping)[: file.used])
        take_place = _taking_place(file, fd)
        _make_room(file.path)
        os.rename(temporary, file.path)
        take_place()
        status = os.fstat(fd)
        _replace_descriptors(file.identity, fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    return status.st_dev, status.st_ino


def _write_whole(fd: int, content: memoryview) -> None:
    """Write everything or raise ``OSError``; written pages are allocated, so a full file system kills nobody later."""
    if os.pwrite(fd, content, 0) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _make_room(path: str) -> None:
    """Set aside a folder that stands at the file's path; anything else is replaced by the rename."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            bad = os.path.join(os.path.dirname(path), f".bad-{os.path.basename(path)}")
            with contextlib.suppress(OSError):
                os.rmdir(bad)
            os.rename(path, bad)


def load_ahead() -> None:
    """Import what healing needs before this process changes its user, who may not be allowed to read the interpreter's
    files (below /root).
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("ctypes")


def _taking_place(file: MappedFile, fd: int) -> Any:
    """Return a function that copies the mapped content and maps the new file over the old one, in one step."""
    import ctypes  # noqa: PLC0415 - takes a megabyte, and is needed only when somebody deletes files

    library = ctypes.PyDLL(None)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.memmove.restype, library.memmove.argtypes = pointer, [pointer, pointer, size]
    library.mmap.restype = pointer
    library.mmap.argtypes = [pointer, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]

    def address(mapping: mmap.mmap) -> int:
        # the ctypes object is freed at once, so that the mapping can be closed
        return ctypes.addressof(ctypes.c_char.from_buffer(mapping))

    fresh = mmap.mmap(fd, file.used)
    protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED
    place = address(file.mapping)
    steps = (
        partial(library.memmove, address(fresh), place, file.used),
        partial(library.mmap, place, len(file.mapping), protection, flags, fd, 0),
    )
    call = partial.__call__

    def take_place() -> None:
        # map() makes these calls one after the other within C: no thread switch, no signal handler in between.
        _, mapped = tuple(map(call, steps))
        fresh.close()
        if mapped != place:
            raise OSError(f"{file.path} cannot be mapped again")

    return take_place


def _replace_descriptors(identity: tuple[int, int], fd: int) -> None:
    """Redirect the descriptor that Python's mapping keeps to the new file: else the old one's space stays taken."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            number = int(name)
            with contextlib.suppress(OSError):
                status = os.fstat(number)
                # A reader of the old file may close the descriptor at this moment.
                if (status.st_dev, status.st_ino) == identity and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_RDWR:
                    os.dup2(fd, number, inheritable=False)
