"""The store's directory: made private, or taken over from the user; locked while masters live; left-overs swept."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

from promgun.errors import StoreError
from promgun.store.files import Owner
from promgun.system.folders import SHARED_MEMORY, temporary_folder

LOCK_NAME = "store.lock"
#: What prometheus_client and promgun name their files; nothing else in a user's directory is ours to remove.
_OURS = re.compile(
    r"(\.bad-|\.new-)?(counter|histogram|summary|gauge_[a-z]+)_[\w-]+\.db"
    r"|slot-\d+\.lock|(\.new-)?master-slot\d+\.json(\.\w+\.tmp)?|gunicorn-\d+\.ctl"
)
_PREFIX = "promgun-"
_UNFINISHED = ".promgun-"
_UNFINISHED_AGE = 3600.0
#: Room that shared memory must have before we choose it: a container's default /dev/shm is 64 MiB.
_LEAST_FREE = 8 << 20


class StoreDirectory:
    """A directory that this process, and who it forks, holds a shared lock on.

    ``private`` directories are removed by the last master to leave; a user's is never removed.
    """

    def __init__(self, path: Path, lock_fd: int, owner: Owner, *, private: bool) -> None:
        self.path = path
        self.owner = owner
        self.private = private
        self._lock_fd = lock_fd
        self._owner_pid = os.getpid()

    def adopt(self) -> None:
        """Make this process the one that closes the directory (``--daemon`` forks after it was made)."""
        self._owner_pid = os.getpid()

    @property
    def is_mine(self) -> bool:
        """Whether this process is the one that closes the directory: false in workers, and after :meth:`close`."""
        return os.getpid() == self._owner_pid

    def give_to(self, owner: Owner) -> None:
        """Hand directory and lock over to the user that the workers will run as."""
        self.owner = owner
        owner.take(self._lock_fd)
        directory_fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            owner.take(directory_fd)
        finally:
            os.close(directory_fd)

    def close(self) -> None:
        """Leave; the last one out removes a private directory. Only the process that owns it acts: workers run this
        too.
        """
        if not self.is_mine:
            return
        self._owner_pid = -1
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            last = False
        else:
            last = True
        if last and self.private:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock_fd)


def _lock(path: Path, *, exclusive: bool) -> int | None:
    """Return a descriptor that holds the store's lock, or ``None`` when a live run holds it."""
    fd = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _candidates() -> list[Path]:
    places = [SHARED_MEMORY] if SHARED_MEMORY.is_dir() else []
    return list(dict.fromkeys([*places, temporary_folder()]))


def _has_room(place: Path) -> bool:
    try:
        status = os.statvfs(place)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize >= _LEAST_FREE and (status.f_favail > 0 or status.f_files == 0)


def create_private(owner: Owner, places: list[Path] | None = None) -> StoreDirectory:
    """Make a private directory (0700) in shared memory or the temporary folder, after sweeping left-overs there.

    Raises :class:`StoreError` when no place can hold it.
    """
    places = _candidates() if places is None else places
    for place in places:
        sweep(place)
    for place in sorted(places, key=lambda place: not _has_room(place)):
        try:
            unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=place))
        except OSError:
            continue
        try:
            return _finish(unfinished, owner)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
    tried = ", ".join(str(place) for place in places)
    raise StoreError(
        f"No directory for the metrics store can be made in {tried}",
        "Free some space there, or name another place with --metrics-dir DIR.",
    )


def _finish(unfinished: Path, owner: Owner) -> StoreDirectory:
    # Complete and locked before it gets its name, so that no sweep elsewhere takes it for a left-over.
    lock_fd = _lock(unfinished, exclusive=False)
    if lock_fd is None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(unfinished))
    try:
        path = unfinished.with_name(unfinished.name.removeprefix("."))
        directory = StoreDirectory(path, lock_fd, owner, private=True)
        unfinished.rename(path)
        directory.give_to(owner)
    except OSError:
        os.close(lock_fd)
        raise
    return directory


def take_over(path: Path, owner: Owner) -> StoreDirectory:
    """Take a directory that the user named: made if missing, stale value files wiped, refused while a live run holds
    it.

    Raises :class:`StoreError`: not a directory, foreign, not writable, or in use.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise _not_made(path, error) from error
    _check_status(path, status, owner)
    try:
        lock_fd = _lock(path, exclusive=True)
    except OSError as error:
        raise _not_writable(path, error) from error
    if lock_fd is None:
        raise StoreError(
            f"The store directory {path} is in use by another live run",
            "Give this run a directory of its own with --metrics-dir DIR, or leave the option out; see: promgun ps",
        )
    wipe(path)
    fcntl.flock(lock_fd, fcntl.LOCK_SH)
    directory = StoreDirectory(path, lock_fd, owner, private=False)
    directory.give_to(owner)
    return directory


def check_named(path: Path, owner: Owner) -> None:
    """Raise the :class:`StoreError` of :func:`take_over`, one in use excepted; nothing is made or locked."""
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    except FileNotFoundError:
        above = next(parent for parent in path.parents if parent.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            raise _not_made(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES))) from None
        return
    except OSError as error:
        raise _not_made(path, error) from error
    _check_status(path, status, owner)
    if not os.access(path, os.W_OK | os.X_OK):
        raise _not_writable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _not_made(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"The store directory {path} cannot be made: {error.strerror}",
        "Name a directory that you may write with --metrics-dir DIR.",
    )


def _not_writable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"The store directory {path} is not writable: {error.strerror}",
        "Name a directory that you may write with --metrics-dir DIR.",
    )


def _check_status(path: Path, status: os.stat_result, owner: Owner) -> None:
    allowed = {os.geteuid(), owner.uid} if os.geteuid() == 0 else {os.geteuid()}
    if status.st_uid not in allowed:
        raise StoreError(
            f"The store directory {path} belongs to another user (uid {status.st_uid})",
            "Name a directory of your own with --metrics-dir DIR, or leave the option out for a private one.",
        )
    if status.st_mode & stat.S_IWOTH:
        raise StoreError(
            f"The store directory {path} is writable by everybody",
            f"Anybody could forge metrics or plant files there: chmod o-w {path}",
        )


def attach(path: Path, owner: Owner, *, private: bool) -> StoreDirectory:
    """Join the store of the master that executed us (SIGUSR2): shared lock, nothing wiped. Raises
    :class:`StoreError`.
    """
    try:
        lock_fd = _lock(path, exclusive=False)
    except OSError as error:
        raise StoreError(f"The store {path} of the old master is gone: {error.strerror}", "Start anew.") from error
    if lock_fd is None:
        raise StoreError(f"The store {path} of the old master is being removed", "Start anew.")
    return StoreDirectory(path, lock_fd, owner, private=private)


def wipe(path: Path) -> None:
    """Remove the value files, boards and facts of an earlier run; anything else stays."""
    for entry in os.scandir(path):
        if _OURS.fullmatch(entry.name) and not entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def sweep(place: Path) -> list[Path]:
    """Remove the private directories in ``place`` that belong to us and that no process holds; return them."""
    swept = []
    for path in [*place.glob(f"{_PREFIX}*"), *place.glob(f"{_UNFINISHED}*")]:
        with contextlib.suppress(OSError):
            if _is_left_over(path):
                shutil.rmtree(path, ignore_errors=True)
                swept.append(path)
    return swept


def _is_left_over(path: Path) -> bool:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or os.geteuid() not in (0, status.st_uid):
        return False
    if path.name.startswith("."):
        return time.time() - status.st_mtime > _UNFINISHED_AGE
    if not (path / LOCK_NAME).exists():
        return False
    lock_fd = _lock(path, exclusive=True)
    if lock_fd is None:
        return False
    os.close(lock_fd)
    return True
