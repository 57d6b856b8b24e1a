"""Makes a run's directory: a private one, or one below a directory that the user named."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from promgun.errors import StoreError
from promgun.store.descriptor import Identity
from promgun.store.left_overs import UNFINISHED, sweep
from promgun.store.new_file import Owner
from promgun.store.run_directory import (
    MASTER,
    SECOND_CLIENT,
    SLOTS,
    RunDirectory,
    changed_option,
    directory_identity,
    fill,
    has_workers,
)
from promgun.system.folders import SHARED_MEMORY, temporary_folder
from promgun.system.safe_open import open_folder

#: The run's own directory below one that the user names, whose content others may wipe at any moment.
INNER = ".promgun"
#: The free space that shared memory must have to be chosen: a container's default /dev/shm is 64 MiB.
_LEAST_FREE = 8 << 20
_ONLY_ROOT = "They could put another in its place: name one whose folders only root may write, e.g. in /run"
_RESTART = "Stop the server and start it again"
_ANOTHER = "Name another directory with --metrics-dir DIR, or leave the option out for a private one"


def create_private(owner: Owner, places: list[Path] | None = None, second_client: Path | None = None) -> RunDirectory:
    """Make a private directory in shared memory or the temporary folder, after removing left-overs there.

    Raises :class:`StoreError` when none of these places can hold it.
    """
    places = _candidates() if places is None else places
    for place in places:
        sweep(place, owner)
    for place in sorted(places, key=lambda place: not _has_room(place)):
        try:
            unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place))
        except OSError:
            continue
        try:
            return _finish(unfinished, owner, second_client)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
    tried = ", ".join(str(place) for place in places)
    raise StoreError(
        f"No directory for the metrics store can be made in {tried}",
        "Free some space there, or name another place with --metrics-dir DIR",
    )


def _finish(unfinished: Path, owner: Owner, second_client: Path | None) -> RunDirectory:
    # It is complete and locked before it gets its final name, so that no other run's sweep takes it for a left-over.
    with _closed_on_error(open_folder(unfinished)) as fd:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fill(fd, owner, second_client)
        path = unfinished.with_name(unfinished.name.removeprefix("."))
        unfinished.rename(path)
        return RunDirectory(path, fd, owner, private=True, second_client=second_client)


@contextlib.contextmanager
def _closed_on_error(fd: int) -> Iterator[int]:
    try:
        yield fd
    except BaseException:
        os.close(fd)
        raise


def _candidates() -> list[Path]:
    places = [SHARED_MEMORY] if SHARED_MEMORY.is_dir() else []
    return list(dict.fromkeys([*places, temporary_folder()]))


def _has_room(place: Path) -> bool:
    try:
        status = os.statvfs(place)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize >= _LEAST_FREE and (status.f_favail > 0 or status.f_files == 0)


def take_over(path: Path, owner: Owner) -> RunDirectory:
    """Make the run's directory below one that the user named, which is made if missing.

    A left-over of an ended run is emptied, the directory of a live run is refused. Raises :class:`StoreError` when the
    named path is not a directory, belongs to another user, cannot be written, is in use, or is open to others.
    """
    try:
        outer_fd = _open_named(path, owner)
        try:
            return _take_inner(path, outer_fd, owner)
        finally:
            os.close(outer_fd)
    except OSError as error:
        raise _unusable(path, error) from error


def check_named(path: Path, owner: Owner) -> None:
    """Raise the same :class:`StoreError` as :func:`take_over`, except for one in use; makes and locks nothing."""
    try:
        _check_named(path, owner)
    except OSError as error:
        raise _unusable(path, error) from error


def _check_named(path: Path, owner: Owner) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        above = next(parent for parent in path.parents if parent.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            raise _unusable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES))) from None
        _refuse_above(path)
        return
    if not stat.S_ISDIR(status.st_mode):
        raise _unusable(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    _refuse_unsafe(path, status, owner)
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unusable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _unusable(path: Path, error: OSError) -> StoreError:
    reason = "it is a link" if os.path.islink(path) else error.strerror
    return StoreError(f"The store directory {path} cannot be used: {reason}", _ANOTHER)


def _open_named(path: Path, owner: Owner) -> int:
    """Return a descriptor of the named directory, checked; raises ``OSError`` or :class:`StoreError`."""
    # check the folders above before anything is made there
    _refuse_above(path)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    with _closed_on_error(open_folder(path)) as fd:
        status = os.fstat(fd)
        _refuse_unsafe(path, status, owner)
        if os.geteuid() == 0 and status.st_uid == 0 and owner.uid and not status.st_mode & stat.S_ISVTX:
            os.fchown(fd, owner.uid, -1 if owner.gid is None else owner.gid)
    return fd


def _refuse_unsafe(path: Path, status: os.stat_result, owner: Owner) -> None:
    # The owner of a sticky folder can rename others' entries in it: it must be root, or a user who may do so anyway.
    sticky = bool(status.st_mode & stat.S_ISVTX)
    allowed = {os.geteuid(), *([owner.uid] if os.geteuid() == 0 else []), *([0] if sticky else [])}
    if status.st_uid not in allowed:
        raise StoreError(f"The store directory {path} belongs to another user (uid {status.st_uid})", _ANOTHER)
    if status.st_mode & stat.S_IWOTH and not sticky:
        raise StoreError(
            f"The store directory {path} is writable by everybody",
            f"Anybody could forge metrics or plant files there: chmod o-w {path}",
        )
    if os.geteuid() == 0 and status.st_uid == 0 and _others_may_write(status):
        raise StoreError(f"The store directory {path} may be written by others than root", _ONLY_ROOT)
    _refuse_above(path)


def _refuse_above(path: Path) -> None:
    """Refuse, for a root master, a path with a folder above it that others than root could replace."""
    # Path.resolve raises RuntimeError for links in a circle (Python 3.12 and older).
    for folder in Path(os.path.realpath(path)).parents if os.geteuid() == 0 else ():
        if folder.exists() and _others_may_write(folder.stat()):
            raise StoreError(
                f"The store directory {path} lies in {folder}, where not only root may write, and root is the master",
                _ONLY_ROOT,
            )


def _others_may_write(status: os.stat_result) -> bool:
    """Whether others than root could replace what root has made in a folder."""
    if status.st_uid != 0:
        return True
    by_others = bool(status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid != 0))
    return by_others and not status.st_mode & stat.S_ISVTX


def _take_inner(outer: Path, outer_fd: int, owner: Owner) -> RunDirectory:
    from promgun.system.remove_tree import empty_folder  # noqa: PLC0415 - only for a directory that was named

    with contextlib.suppress(FileExistsError):
        os.mkdir(INNER, 0o700, dir_fd=outer_fd)
    path = outer / INNER
    with _closed_on_error(open_folder(INNER, dir_fd=outer_fd)) as fd:
        _refuse_foreign(path, os.fstat(fd))
        _lock_alone(outer, fd)
        empty_folder(fd)
        fill(fd, owner, outer)
        fcntl.flock(fd, fcntl.LOCK_SH)
        return RunDirectory(path, fd, owner, private=False, second_client=outer)


def _refuse_foreign(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise StoreError(
            f"{path} belongs to another user (uid {status.st_uid})",
            f"An earlier run left it, or somebody planted it: rm -r {path}",
        )


def _lock_alone(outer: Path, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = has_workers(fd)
    except BlockingIOError:
        held = True
    if held:
        raise StoreError(
            f"The store directory {outer} is in use by another running server",
            "Give this run a directory of its own with --metrics-dir DIR, or leave the option out; see: promgun ps",
        )


def attach(
    path: Path,
    owner: Owner,
    identity: Identity,
    *,
    private: bool,
    second_client: Path | None = None,
) -> RunDirectory:
    """Join the directory of the old master, which executed this one (SIGUSR2): shared lock, nothing wiped.

    Raises :class:`StoreError`.
    """
    try:
        with _closed_on_error(open_folder(path)) as fd:
            _join(path, fd, owner, identity)
            return RunDirectory(path, fd, owner, private=private, second_client=second_client)
    except OSError as error:
        raise StoreError(f"The store {path} of the old master is gone: {error.strerror}", _RESTART) from error


def _join(path: Path, fd: int, owner: Owner, identity: Identity) -> None:
    if directory_identity(fd) != identity:
        raise StoreError(f"Somebody replaced the store {path} of the old master by another directory", _RESTART)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        raise StoreError(f"The store {path} of the old master is being removed", _RESTART) from error
    changed = changed_option(fd, owner)
    if changed:
        raise StoreError(
            f"The store {path} of the old master belongs to workers with another {changed}",
            f"An upgrade by SIGUSR2 cannot change {changed}: restart the server, or take the change back",
        )


def open_run(path: Path) -> RunDirectory:
    """Return a run's directory for reading, without a lock; its ``owner`` is the user of its slots.

    Raises ``OSError``. It is not opened: under a root master the workers' user may not.
    """
    owner = Owner(os.stat(path / SLOTS, follow_symlinks=False).st_uid)
    second = None
    with contextlib.suppress(OSError):
        second = Path(os.readlink(path / SECOND_CLIENT))
    return RunDirectory(path, -1, owner, private=False, second_client=second)


def find_run(path: Path) -> Path | None:
    """Return the run's directory that ``path`` is, or has in it when ``--metrics-dir`` named ``path``; else ``None``.

    Raises ``OSError`` when there is no such directory, or when nothing in it may be opened. It need not be readable:
    workers cannot list a run's directory, only open entries whose names they know.
    """
    os.stat(path)
    if _is_folder(path / SLOTS) and _is_folder(path / MASTER):
        return path
    inner = path / INNER
    return inner if _is_folder(inner / SLOTS) else None


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def run_in(path: Path) -> Path:
    """Return the run's directory that ``path`` is or has in it, ``path`` itself while there is none; never raises."""
    try:
        return find_run(path) or path
    except OSError:
        return path
