"""A value file as its one writer sees it: mapped, grown, healed."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import sys
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from promgun.store import format as fmt
from promgun.store.descriptor import Descriptor
from promgun.store.healing import Harm, Healing, MappedFile, heal

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


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a file in the store; ``None`` leaves it to whoever makes it."""

    uid: int | None = None
    gid: int | None = None

    def take(self, fd: int) -> None:
        """Give an open file to this owner, if it is another user and this process may."""
        if self != Owner() and os.geteuid() == 0:
            os.fchown(fd, -1 if self.uid is None else self.uid, -1 if self.gid is None else self.gid)


def reserve(fd: int, size: int) -> None:
    """Allocate ``size`` bytes of the file's disk space; raises ``OSError`` (ENOSPC, EDQUOT …) when that fails.

    A sparse mapping kills its process with SIGBUS when the file system is full.
    """
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        # musl and some file systems do not emulate posix_fallocate: write the zeros ourselves.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        have = os.fstat(fd).st_size
        while have < size:
            have += os.pwrite(fd, bytes(min(size - have, 1 << 16)), have)


def reserve_range(fd: int, offset: int, size: int) -> None:
    """Allocate ``size`` bytes from ``offset`` on without changing their content; raises ``OSError``."""
    try:
        os.posix_fallocate(fd, offset, size)
    except OSError as error:
        # musl and some file systems do not emulate it: write the present content, so that the pages are allocated.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.pwrite(fd, os.pread(fd, size, offset).ljust(size, b"\0"), offset)


class ValueFile:
    """The float cells of one type of metric, owned by one slot.

    ``cells`` is the whole file as float64: the value of an entry at byte offset ``p`` is ``cells[p // 8]``. Earlier
    mappings stay valid when the file grows: all map the same pages.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        """Open or make the file. A damaged one is rewritten with its good entries; one without good entries is set
        aside.

        Raises ``OSError`` when there is no space or no permission; a half-made file is never left under ``path``.
        """
        self.path = path
        self.damage = ""
        #: all mappings in which somebody may have places
        self._mappings: list[weakref.ref[mmap.mmap]] = []
        fd = self._open(owner)
        try:
            size = os.fstat(fd).st_size
            self._size = max(INITIAL_SIZE, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
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
        mapping = mmap.mmap(self._descriptor.of(self.path), self._size)
        self._mappings = [*filter(lambda known: known() is not None, self._mappings), weakref.ref(mapping)]
        memory = memoryview(mapping)
        self.cells = memory.cast("d")
        self._head = memory.cast("Q")

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
        size = self._size
        while size < need:
            size *= 2
        if size > MAX_SIZE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self.path))
        reserve(self._descriptor.of(self.path), size)
        self._size = size
        self._map()

    def heal(self) -> Healing:
        """Make the file again if it was removed, replaced or cut; places stay valid. The caller holds the store's lock.
        Never raises.
        """
        try:
            mappings = [mapping for known in self._mappings if (mapping := known()) is not None]
            identity = self._descriptor.identity
            healing = heal(MappedFile(str(self.path), identity, self._size, self._size, mappings))
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
        """Close the descriptor; mappings live as long as somebody uses their cells."""
        self._descriptor.close()


class WrittenValueFile(ValueFile):
    """A value file for a process that maps nothing: its cells are private memory, written out by :meth:`flush`."""

    def __init__(self, path: Path, owner: Owner, mode: int) -> None:
        self._memory = bytearray()
        super().__init__(path, owner)
        fd = self._descriptor.of(path)
        os.fchmod(fd, mode)
        owner.take(fd)

    def _map(self) -> None:
        # Cells handed out earlier must stay valid: the memory is made once, as large as the file may become.
        if not self._memory:
            self._memory = bytearray(WRITTEN_SIZE)
            content = os.pread(self._descriptor.of(self.path), self._size, 0)
            self._memory[: len(content)] = content
            self.cells = memoryview(self._memory).cast("d")
            self._head = memoryview(self._memory).cast("Q")

    def _write_entry(self, entry: bytes, at: int) -> None:
        self._memory[at : at + len(entry)] = entry
        super()._write_entry(entry, at)

    def _grow(self, need: int) -> None:
        if need > WRITTEN_SIZE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self.path))
        super()._grow(need)

    def heal(self) -> Healing:
        """Do nothing: only masters can write where this file lies, and nothing maps it."""
        return Healing(Harm.NONE, (0, 0))

    def flush(self) -> None:
        """Write the cells out, and last the header that makes entries count; raises ``OSError``."""
        fd = self._descriptor.of(self.path)
        os.pwrite(fd, self._memory[fmt.HEADER_SIZE : self._used], fmt.HEADER_SIZE)
        os.pwrite(fd, self._memory[: fmt.HEADER_SIZE], 0)
