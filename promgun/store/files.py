"""A value file as its one writer sees it: mapped, grown, healed."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import resource
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from promgun.store import format as fmt
from promgun.store.descriptor import Descriptor
from promgun.store.healing import Harm, Healing, MappedFile, find_harm, heal
from promgun.store.new_file import Owner, reserve

#: Small enough for many workers in a 64 MiB /dev/shm, large enough that most files never grow.
INITIAL_SIZE = 1 << 14
#: A larger file is not ours: it would hold over 100,000 series.
MAX_SIZE = 1 << 24
#: The size of a master's file of the application's metrics (``--preload``).
WRITTEN_SIZE = 1 << 21

_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NOT_REGULAR = "not a regular file"
_OVERSIZE = "oversize"
#: Damage of a file in which no good entries are looked for; the empty text is a file without damage.
_NOTHING_IN_IT = frozenset({_NOT_REGULAR, _OVERSIZE, ""})


def _size_for(need: int, size: int) -> int:
    """Return ``size``, doubled until ``need`` bytes fit in."""
    while size < need:
        size *= 2
    return size


def _length_allowed() -> int:
    """Return the largest size of a file here, in whole pages (``RLIMIT_FSIZE``)."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return MAX_SIZE if limit == resource.RLIM_INFINITY else min(MAX_SIZE, limit - limit % mmap.PAGESIZE)


class ValueFile:
    """The float cells of one type of metric, owned by one slot.

    ``cells`` is the file as float64, in the length that it may grow to: the value of an entry at byte offset ``p`` is
    ``cells[p // 8]``. It is mapped once, so that places never move, and a file costs two descriptors, however large.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        """Open or make the file. A damaged one is rewritten with its good entries; one without good entries is set
        aside.

        Raises ``OSError`` when there is no space or no permission; a half-made file is never left under ``path``.
        """
        self.path = path
        self.damage = ""
        fd = self._open(owner)
        try:
            self._size = _size_for(self._used, INITIAL_SIZE)
            reserve(fd, self._size)
            self._descriptor = Descriptor(fd)
            self._map()
        except BaseException:
            os.close(fd)
            raise

    def _open(self, owner: Owner) -> int:
        """Return a descriptor of the file under our name, repaired and indexed."""
        fd = self._open_existing()
        if fd is None:
            return self._create(owner, b"")
        try:
            self.damage = self._index(fd)
            content = fmt.salvage(os.pread(fd, MAX_SIZE, 0)) if self.damage not in _NOTHING_IN_IT else b""
        except BaseException:
            os.close(fd)
            raise
        if not self.damage:
            return fd
        os.close(fd)
        if not content:
            self._set_aside()
        return self._create(owner, content)

    def _open_existing(self) -> int | None:
        try:
            return os.open(self.path, _OPEN)
        except FileNotFoundError:
            return None
        except OSError as error:
            # a symbolic link (ELOOP), a directory, a socket (ENXIO): promgun did not make it
            if error.errno not in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
                raise
        self.damage = _NOT_REGULAR
        self._set_aside()
        return None

    def _index(self, fd: int) -> str:
        """Index the entries; return what is wrong with the file, empty when nothing is."""
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return _NOT_REGULAR
        if status.st_size > MAX_SIZE:
            return _OVERSIZE
        data = os.pread(fd, status.st_size, 0)
        self._used = fmt.read_used(data)
        self._edition = fmt.read_edition(data)
        found = fmt.scan(data, self._used)
        self.positions = dict(found.entries)
        damage = fmt.header_error(self._used, len(data)) or found.error
        if damage:
            return damage
        # An entry behind the end that holds a value was once counted: the end is wrong. One without a value was being
        # appended when its writer was killed, and is overwritten.
        behind = fmt.scan(data, len(data), self._used).entries
        return "entries behind the end" if any(data[at : at + 8].strip(b"\0") for _, at in behind) else ""

    def _set_aside(self) -> None:
        bad = self.path.with_name(f".bad-{self.path.name}")
        with contextlib.suppress(OSError):
            bad.unlink()
        with contextlib.suppress(OSError):
            bad.rmdir()
        self.path.replace(bad)

    def _create(self, owner: Owner, content: bytes) -> int:
        # Complete under a temporary name first: one empty *.db makes every stock scrape raise (client_python #1199).
        temporary = self.path.with_name(f".new-{self.path.name}")
        temporary.unlink(missing_ok=True)
        used = fmt.HEADER_SIZE + len(content)
        edition = int.from_bytes(os.urandom(4), sys.byteorder)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            reserve(fd, max(INITIAL_SIZE, used))
            os.pwrite(fd, fmt.encode_header(used, edition) + content, 0)
            owner.take(fd)
            self._index(fd)
            temporary.rename(self.path)
        except BaseException:
            os.close(fd)
            temporary.unlink(missing_ok=True)
            raise
        return fd

    def _map(self) -> None:
        """Map the file in the length that it may grow to: Python maps none beyond its end, so it has this length for a
        moment. One mapping for each growth would keep one more descriptor each.
        """
        fd = self._descriptor.of(self.path)
        try:
            os.ftruncate(fd, _length_allowed())
            self._mapping = mmap.mmap(fd, 0)
        finally:
            os.ftruncate(fd, self._size)
        memory = memoryview(self._mapping)
        self.cells = memory.cast("d")
        self._head = memory.cast("Q")

    def indexes(self, keys: Iterable[str]) -> list[int]:
        """Return the cell index of each key, adding missing entries; raises ``OSError`` when the file cannot grow."""
        result = []
        for key in keys:
            position = self.positions.get(key)
            result.append((self._append(key) if position is None else position) // 8)
        return result

    def _append(self, key: str) -> int:
        entry = fmt.encode_entry(key)
        if len(entry) > fmt.MAX_KEY:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE), str(self.path))
        end = self._used + len(entry)
        if end > self._size:
            self._grow(end)
        # The entry first, then, in one store, the header that makes it count: a reader, or a kill, in between finds the
        # old end.
        self._write_entry(entry, self._used)
        try:
            self._used = end
            self.positions[key] = end - 16
        finally:
            # Also when a signal handler raised: the next caller with this key finds the entry or appends it again.
            self._head[0] = int.from_bytes(fmt.encode_header(self._used, self._edition), sys.byteorder)
        return end - 16

    def _write_entry(self, entry: bytes, at: int) -> None:
        os.pwrite(self._descriptor.of(self.path), entry, at)

    def _grow(self, need: int) -> None:
        size = _size_for(need, self._size)
        if size > self.cells.nbytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self.path))
        reserve(self._descriptor.of(self.path), size)
        self._size = size

    def find_harm(self) -> Harm:
        """Return what happened to the file; never raises."""
        return find_harm(str(self.path), self._descriptor.identity, self._size)

    def heal(self) -> Healing:
        """Make the file again if it was removed, replaced or cut; places stay valid. The caller holds the store's lock.
        Never raises.
        """
        try:
            identity = self._descriptor.identity
            healing = heal(MappedFile(str(self.path), identity, self._size, self._size, self._mapping))
            if healing.harm is Harm.SHRUNK and not healing.error:
                self._write_keys_again()
            elif healing.identity != identity:
                self._descriptor.replace(os.open(self.path, _OPEN))
        except OSError as error:
            return Healing(Harm.NONE, (0, 0), str(error))
        return healing

    def _write_keys_again(self) -> None:
        """Write the entries behind a cut again, without their values, which are lost."""
        fd = self._descriptor.of(self.path)
        for key, position in self.positions.items():
            entry = fmt.encode_entry(key)[:-16]
            os.pwrite(fd, entry, position - len(entry))
        self._head[0] = int.from_bytes(fmt.encode_header(self._used, self._edition), sys.byteorder)

    def close(self) -> None:
        """Close the descriptor; the mapping lives as long as somebody uses its cells."""
        self._descriptor.close()


class WrittenValueFile(ValueFile):
    """A value file for a process that maps nothing: its cells are private memory, written out by :meth:`flush`."""

    def __init__(self, path: Path, owner: Owner, mode: int) -> None:
        super().__init__(path, owner)
        fd = self._descriptor.of(path)
        os.fchmod(fd, mode)
        owner.take(fd)

    def _map(self) -> None:
        self._memory = bytearray(WRITTEN_SIZE)
        content = os.pread(self._descriptor.of(self.path), self._size, 0)
        self._memory[: len(content)] = content
        self.cells = memoryview(self._memory).cast("d")
        self._head = memoryview(self._memory).cast("Q")

    def _write_entry(self, entry: bytes, at: int) -> None:
        self._memory[at : at + len(entry)] = entry
        super()._write_entry(entry, at)

    def heal(self) -> Healing:
        """Do nothing: only masters can write where this file lies, and nothing maps it."""
        return Healing(Harm.NONE, (0, 0))

    def flush(self) -> None:
        """Write the cells out, and last the header that makes entries count; raises ``OSError``."""
        fd = self._descriptor.of(self.path)
        os.pwrite(fd, self._memory[fmt.HEADER_SIZE : self._used], fmt.HEADER_SIZE)
        os.pwrite(fd, self._memory[: fmt.HEADER_SIZE], 0)
