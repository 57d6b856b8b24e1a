"""Value files of processes that run without promgun: spawned children, subprocesses, task workers.

Such processes have ``PROMETHEUS_MULTIPROC_DIR`` in their environment and write prometheus_client's own
``counter_PID.db`` there. Anybody may put other things into that directory: only regular files of bounded number and
size are opened, no symbolic link is followed, and no call waits.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from promgun.store.client_links import KINDS, LINK
from promgun.store.folded_file import Origin, bytes_in_use
from promgun.system.procfs import process_start
from promgun.system.safe_open import open_regular

#: A quarter of what one reading may hold: the most files, the most bytes together.
MOST_FILES = 1024
MOST_BYTES = 16 << 20
#: The most entries of a directory that are looked at.
_MOST_NAMES = 20_000
_LINK = re.compile(LINK)
_NAME = re.compile(rf"({KINDS})_(.{{1,200}})\.db")
#: Sent to the holder of a lease when somebody opens the file. By default it is ignored (signal(7)), whereas the usual
#: SIGIO would end the process.
_LEASE_SIGNAL = signal.SIGURG


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ForeignFile:
    """A value file that is not ours.

    ``process`` is the part of its name that tells who writes it: a pid, unless the application chose another
    identifier.
    """

    folder: Path
    kind: str
    process: str
    origin: Origin

    @property
    def path(self) -> Path:
        """Where it stands."""
        return self.folder / self.origin.name


def find_foreign(folders: Iterable[Path]) -> list[ForeignFile]:
    """Return the foreign value files in client directories, by kind, directory and name; never raises."""
    found: dict[tuple[int, int], ForeignFile] = {}
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for _, entry in zip(range(_MOST_NAMES), entries, strict=False):
                match = None if _LINK.fullmatch(entry.name) else _NAME.fullmatch(entry.name)
                if match is None:
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        origin = _origin(entry.name, status)
                        # one file may be found in two directories
                        found.setdefault(origin[1:3], ForeignFile(folder, match[1], match[2], origin))
    return sorted(found.values(), key=lambda file: (file.kind, str(file.folder), file.origin.name))


def _origin(name: str, status: os.stat_result) -> Origin:
    return Origin(name, status.st_dev, status.st_ino, status.st_mtime_ns)


def read_foreign(file: ForeignFile, limit: int = MOST_BYTES) -> bytes:
    """Return the used bytes of a file, at most ``limit``; raises ``OSError``, also when the file has been replaced."""
    fd = _open(file)
    try:
        return bytes_in_use(lambda size, offset: os.pread(fd, size, offset), limit)
    finally:
        os.close(fd)


def _open(file: ForeignFile) -> int:
    folder_fd = os.open(file.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_regular(folder_fd, file.origin.name)
    finally:
        os.close(folder_fd)
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) != (file.origin.device, file.origin.inode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "replaced by another", str(file.path))
    return fd


class DeadFile:
    """A foreign file without a writer, held by a lease: a process that opens it for writing waits until it is released
    (a moment).
    """

    def __init__(self, file: ForeignFile, fd: int, *, leased: bool) -> None:
        self.file = file
        status = os.fstat(fd)
        self.origin = _origin(file.origin.name, status)
        self._fd = fd
        self._leased = leased

    def read(self) -> bytes:
        """Return the used bytes; raises ``OSError``."""
        return bytes_in_use(lambda size, offset: os.pread(self._fd, size, offset), MOST_BYTES)

    @property
    def is_wanted(self) -> bool:
        """Whether a process waits to write to the file: a new process with the dead one's pid."""
        if not self._leased:
            return not _has_ended(self.file.process)
        try:
            return fcntl.fcntl(self._fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK
        except OSError:
            return True

    def remove(self) -> bool:
        """Unlink the file unless another has taken its name; return whether it is gone."""
        path = self.file.path
        try:
            status = path.lstat()
            if (status.st_dev, status.st_ino) != (self.origin.device, self.origin.inode):
                return True
            path.unlink()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def hold_if_dead(file: ForeignFile) -> DeadFile | None:
    """Return the file, held, when no process has it open for writing or mapped; ``None`` when one has it, or when that
    cannot be found out. Never raises.

    A read lease is granted only where there is no writer, in whatever pid namespace it lives (fcntl(2), F_SETLEASE).
    """
    try:
        fd = _open(file)
    except OSError:
        return None
    try:
        leased = _lease(fd)
        if leased is True or (leased is None and _has_ended(file.process)):
            return DeadFile(file, fd, leased=bool(leased))
    except OSError:
        pass
    os.close(fd)
    return None


def _lease(fd: int) -> bool | None:
    """Take a read lease; ``False`` when there is a writer, ``None`` where this process cannot have leases."""
    if not hasattr(fcntl, "F_SETLEASE") or not hasattr(fcntl, "F_SETSIG"):
        return None
    fcntl.fcntl(fd, fcntl.F_SETSIG, _LEASE_SIGNAL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        # EAGAIN: there is a writer. EINVAL: the file system has no leases, or they are off. EACCES: another user's
        # file.
        return None if error.errno in {errno.EINVAL, errno.EACCES, errno.EPERM, errno.ENOSYS} else False
    return True


def _has_ended(process: str) -> bool:
    """Whether the process is gone; only asked where there are no leases. An identifier other than a pid is alive."""
    return process.isascii() and process.isdigit() and len(process) < 10 and process_start(int(process)) == -1  # noqa: PLR2004 - pids have at most 7 digits
