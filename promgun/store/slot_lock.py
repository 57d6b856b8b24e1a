"""Slots: the kernel decides, by ``flock``, which process may write which files.

A process owns slot *n* while it holds the lock on ``n.lock``. A master takes the lock for a worker, which inherits it,
and closes its own descriptor after the fork. The kernel frees the lock when the last holder ends, also by SIGKILL. Lock
files have no content.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Collection
from pathlib import Path

from promgun.store.descriptor import Descriptor, Identity, identity_of
from promgun.store.new_file import Owner
from promgun.system.safe_open import open_regular, opened_folder

FIRST_SLOT = 1
MOST_SLOTS = 4096
_LOCK = ".lock"
#: Errors of a lock file that is no regular file or cannot be opened: such a slot is skipped, whoever caused it.
_NOT_A_FILE = frozenset({errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENOENT, errno.EAGAIN, errno.EACCES, errno.EPERM})


class SlotLock:
    """A claim on a slot: an open, locked file; in a master, once the worker is forked, the number alone."""

    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        #: when the slot's last owner ended, on the monotonic clock; 0 when it has had none
        self.owner_ended_at = 0
        self._descriptor = Descriptor(fd)

    @property
    def fd(self) -> int | None:
        """The locked descriptor, ``None`` once released."""
        return self._descriptor.fd

    def release(self) -> None:
        """Release this process's hold; the slot is free unless another process still holds the same claim."""
        self._descriptor.close()

    def heal(self, slots: Path) -> bool:
        """Make the lock file again if somebody deleted or replaced it, so that no other process takes a living one's
        slot; lock it again if the application closed our descriptor.

        Return whether the file was gone. Raises ``OSError`` while it is impossible because another process has taken
        the slot.
        """
        name = f"{self.number}{_LOCK}"
        if self.fd is None:
            return False
        is_there = _is_file(slots / name, self._descriptor.identity)
        if is_there and self._descriptor.is_ours:
            return False
        with opened_folder(slots) as slots_fd:
            fd = _lock(slots_fd, name, Owner())
        if fd is None:
            raise OSError(errno.EAGAIN, f"another process has taken slot {self.number}")
        self._descriptor.replace(fd)
        return not is_there

    def __del__(self) -> None:
        self.release()


def claim_slot(slots_fd: int, owner: Owner, taken: Collection[int] = ()) -> SlotLock:
    """Take the lowest free slot in an open directory that is not among those ``taken``; raises ``OSError`` if there is
    none.

    Safe for root in another user's directory: follows no link, never waits, changes the owner only of files it made.
    """
    for number in range(FIRST_SLOT, FIRST_SLOT + MOST_SLOTS):
        if number in taken:
            continue
        fd = _lock(slots_fd, f"{number}{_LOCK}", owner)
        if fd is not None:
            return SlotLock(number, fd)
    raise OSError(errno.EAGAIN, f"none of {MOST_SLOTS} slots is free")


def _is_file(path: Path, identity: Identity) -> bool:
    try:
        return identity_of(os.lstat(path)) == identity
    except FileNotFoundError:
        return False


def is_any_slot_held(slots_fd: int, passed_over: Collection[int] = ()) -> bool:
    """Whether some process has a slot in an open directory, other than those ``passed_over``; never waits, makes
    nothing, follows no link.

    Raises ``OSError``. Workers release the run's own lock, so this shows whether one has outlived its master.
    """
    for name in os.listdir(slots_fd):
        number = _slot_of(name)
        if 0 < number <= MOST_SLOTS and number not in passed_over and is_held(slots_fd, name):
            return True
    return False


def _slot_of(name: str) -> int:
    """Return the number of the slot whose lock file has this name, 0 for other names."""
    number = name.removesuffix(_LOCK)
    is_number = number.isdecimal() and number.isascii() and len(number) <= len(str(MOST_SLOTS))
    return int(number) if is_number and name == f"{int(number)}{_LOCK}" else 0


def is_held(folder_fd: int, name: str) -> bool:
    """Whether some process has a file in an open directory locked, or may have; never waits, makes nothing."""
    try:
        fd = open_regular(folder_fd, name)
    except BlockingIOError:
        # somebody has a lease on it (fcntl(2), F_SETLEASE)
        return True
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _lock(slots_fd: int, name: str, owner: Owner) -> int | None:
    """Return a descriptor that holds the lock; ``None`` when the slot is taken or unusable. Raises ``OSError``."""
    fd = _create_or_open(slots_fd, name, owner)
    if fd is None:
        return None
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
    except BlockingIOError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _create_or_open(slots_fd: int, name: str, owner: Owner) -> int | None:
    common = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | common, 0o600, dir_fd=slots_fd)
    except FileExistsError:
        try:
            return os.open(name, os.O_RDONLY | os.O_NONBLOCK | common, dir_fd=slots_fd)
        except OSError as error:
            if error.errno in _NOT_A_FILE:
                return None
            raise
    try:
        owner.take(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd
