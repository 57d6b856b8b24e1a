"""Removes the private directories of ended runs, when another run begins."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path

from promgun.store.new_file import Owner
from promgun.store.run_directory import VERSION, has_workers
from promgun.system.safe_open import open_folder

#: Names of a run's private directory, and of one that is still being made.
PREFIX = "promgun-"
UNFINISHED = ".promgun-"
_UNFINISHED_AGE = 3600.0
#: Seconds after which a sweep begins to remove nothing more: anybody may have made a million folders of such names.
_SECONDS = 1.0


def sweep(place: Path, owner: Owner) -> list[Path]:
    """Remove the private directories in ``place`` that no process holds; return their paths.

    Only those of this user are removed; root removes its own and those of ``owner``. Never waits and never fails, and
    leaves what it has no time for to a later run.
    """
    swept = []
    until = time.monotonic() + _SECONDS
    ours: frozenset[int | None] = frozenset({os.geteuid(), owner.uid if os.geteuid() == 0 else None})
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if time.monotonic() > until:
                break
            if entry.name.startswith((PREFIX, UNFINISHED)):
                with contextlib.suppress(OSError):
                    if _is_folder_of(entry, ours) and _remove_left_over(place / entry.name, ours):
                        swept.append(place / entry.name)
    return swept


def _is_folder_of(entry: os.DirEntry[str], users: frozenset[int | None]) -> bool:
    """Tell, without opening it; whoever opens it must look again."""
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISDIR(status.st_mode) and status.st_uid in users


def _remove_left_over(path: Path, ours: frozenset[int | None]) -> bool:
    fd = open_folder(path)
    try:
        status = os.fstat(fd)
        if status.st_uid not in ours or not _is_left_over(path, fd, status):
            return False
        from promgun.system.remove_tree import empty_folder  # noqa: PLC0415 - most starts find nothing to remove

        # The version file goes last: a directory without it is not recognised as a left-over.
        empty_folder(fd, last=VERSION)
        path.rmdir()
    finally:
        os.close(fd)
    return True


def _is_left_over(path: Path, fd: int, status: os.stat_result) -> bool:
    if path.name.startswith("."):
        return time.time() - status.st_mtime > _UNFINISHED_AGE
    try:
        os.stat(VERSION, dir_fd=fd, follow_symlinks=False)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return not has_workers(fd)
