"""A value file as its one writer sees it: mapped, grown, healed."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from promgun.store import format as fmt

#: Small enough for a 64 MiB /dev/shm with many workers, large enough that most files never grow.
INITIAL_SIZE = 1 << 14
#: Beyond this a file is not ours: it would hold over 100,000 series.
MAX_SIZE = 1 << 26


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a file in the store belongs to; ``None`` leaves it to whoever makes it."""

    uid: int | None = None
    gid: int | None = None

    def take(self, fd: int) -> None:
        """Give an open file to the owner, where that is somebody else and we may."""
        if self.uid is not None and os.geteuid() == 0:
            os.fchown(fd, self.uid, -1 if self.gid is None else self.gid)


def reserve(fd: int, size: int) -> None:
    """Make ``size`` bytes of the file really there; raises ``OSError`` (ENOSPC, EDQUOT …) when they cannot be.

    A sparse mapping kills its process with SIGBUS when the file system is full.
    """
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        # musl, and some file systems, do not emulate: write the zeros ourselves.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        have = os.fstat(fd).st_size
        while have < size:
            have += os.pwrite(fd, bytes(min(size - have, 1 << 16)), have)


class ValueFile:
    """The float cells of one type of metric, owned by one slot.

    ``cells`` is the whole file as float64: the value of an entry at byte offset ``p`` is ``cells[p // 8]``. A mapping
    handed
    out earlier stays valid when the file grows: both map the same pages.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        """Open or make the file; a damaged one is healed, or set aside when nothing in it is good.

        Raises ``OSError`` when there is no space or no permission; nothing is left under ``path`` then.
        """
        self.path = path
        self.positions: dict[str, int] = {}
        self.damage = ""
        fd = self._open_existing()
        if fd is None:
            fd = self._create(owner)
        try:
            self._used, self._size = self._load(fd)
            self._fd = fd
            self._map()
        except BaseException:
            os.close(fd)
            raise

    def _open_existing(self) -> int | None:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            # a symbolic link (ELOOP), a directory, a FIFO without reader: not made by us
            if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise
            self._set_aside("not a regular file")
            return None
        size = os.fstat(fd).st_size
        used = fmt.read_used(os.pread(fd, fmt.HEADER_SIZE, 0))
        if fmt.HEADER_SIZE <= size <= MAX_SIZE and used >= fmt.HEADER_SIZE:
            return fd
        os.close(fd)
        self._set_aside("no valid header" if size <= MAX_SIZE else "oversize")
        return None

    def _set_aside(self, damage: str) -> None:
        self.damage = damage
        bad = self.path.with_name(f".bad-{self.path.name}")
        if bad.is_dir() and not bad.is_symlink():
            bad.rmdir()
        self.path.replace(bad)

    def _create(self, owner: Owner) -> int:
        # Complete under a temporary name first: one empty *.db makes every stock scrape raise (client_python #1199).
        temporary = self.path.with_name(f".new-{self.path.name}")
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            reserve(fd, INITIAL_SIZE)
            os.pwrite(fd, fmt.encode_header(fmt.HEADER_SIZE), 0)
            owner.take(fd)
            temporary.rename(self.path)
        except BaseException:
            os.close(fd)
            temporary.unlink(missing_ok=True)
            raise
        return fd

    def _load(self, fd: int) -> tuple[int, int]:
        """Index the entries that are there; return how many bytes count and the size of the mapping."""
        size = os.fstat(fd).st_size
        data = os.pread(fd, size, 0)
        used = fmt.read_used(data)
        found = fmt.scan(data, used)
        damage = fmt.header_error(used, size) or found.error
        if damage:
            # Keep what is good before the damage; what follows cannot be told from noise.
            self.damage = damage
            os.pwrite(fd, fmt.encode_header(found.end), 0)
        self.positions = dict(found.entries)
        rounded = max(INITIAL_SIZE, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        reserve(fd, rounded)
        return (found.end if damage else used), rounded

    def _map(self) -> None:
        self.cells = memoryview(mmap.mmap(self._fd, self._size)).cast("d")

    def indexes(self, keys: Iterable[str]) -> list[int]:
        """Return the cell index of each key, adding entries that are missing; raises ``OSError`` when the file cannot
        grow.

        After the call the current ``cells`` covers all of them.
        """
        result = []
        for key in keys:
            position = self.positions.get(key)
            result.append((self._append(key) if position is None else position) // 8)
        return result

    def _append(self, key: str) -> int:
        entry = fmt.encode_entry(key)
        end = self._used + len(entry)
        if end > self._size:
            self._grow(end)
        # The entry first, then the header that makes it count: a reader or a kill in between sees the old end.
        os.pwrite(self._fd, entry, self._used)
        os.pwrite(self._fd, fmt.encode_header(end), 0)
        self._used = end
        position = end - 16
        self.positions[key] = position
        return position

    def _grow(self, need: int) -> None:
        size = self._size
        while size < need:
            size *= 2
        if size > MAX_SIZE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self.path))
        reserve(self._fd, size)
        self._size = size
        self._map()

    def close(self) -> None:
        """Close the descriptor; mappings live on with whoever holds their cells."""
        os.close(self._fd)
