"""Removes a folder's content that a user with fewer rights made: by descriptors, through no link, within limits."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from promgun.system.safe_open import open_folder

#: Nested folders that are entered; deeper ones are first moved up.
DEEPEST = 32
#: The most entries looked at in one call; the rest stays.
MOST_ENTRIES = 100_000


def empty_folder(folder_fd: int, *, last: str = "") -> bool:
    """Remove the content of an open folder; return whether it is empty now.

    Links are removed, never followed; other file systems are not entered. Entries that cannot be removed are skipped.
    The entry ``last`` is removed after all others.
    """
    walk = _Walk(folder_fd)
    while not walk.empty(folder_fd, DEEPEST, last) and walk.moved_up:
        # Folders that were too deep are now in the top folder.
        walk.moved_up = False
    return not os.listdir(folder_fd)


class _Walk:
    """One removal: the number of entries it may still look at, and the folder to which deep folders are moved."""

    def __init__(self, top_fd: int) -> None:
        self._top_fd = top_fd
        self._device = os.fstat(top_fd).st_dev
        self._left = MOST_ENTRIES
        self._moves = 0
        # A random name, so that nobody can have put an entry of that name in the way.
        self._token = os.urandom(8).hex()
        self.moved_up = False

    def empty(self, folder_fd: int, depth: int, last: str = "") -> bool:
        """Remove what is in a folder; return whether it is empty. ``depth`` limits the recursion."""
        try:
            names = os.listdir(folder_fd)
        except OSError:
            return False
        gone = True
        for name in sorted(names, key=last.__eq__):
            self._left -= 1
            too_early = name == last and (self.moved_up or not gone)
            if self._left < 0 or too_early or not self._remove(folder_fd, name, depth):
                gone = False
        return gone and not self.moved_up

    def _remove(self, folder_fd: int, name: str, depth: int) -> bool:
        try:
            status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=folder_fd)
                return True
            if depth == 0:
                self._move_up(folder_fd, name)
                return True
            if status.st_dev == self._device:
                with suppress(OSError):
                    inner_fd = open_folder(name, dir_fd=folder_fd)
                    try:
                        self.empty(inner_fd, depth - 1)
                    finally:
                        os.close(inner_fd)
            os.rmdir(name, dir_fd=folder_fd)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _move_up(self, folder_fd: int, name: str) -> None:
        self._moves += 1
        os.rename(name, f".{self._token}-{self._moves}", src_dir_fd=folder_fd, dst_dir_fd=self._top_fd)
        self.moved_up = True
