"""Where a process stores: a worker in its slot's mapped file, a master in private memory that is written out."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from promgun.store.board import SIZE as BOARD_SIZE
from promgun.store.board import Board, Cell, monotonic_ns
from promgun.store.client_links import link_file, link_masters, unlink_file
from promgun.store.master_file import MasterFile
from promgun.store.new_file import Owner
from promgun.store.row_file import RowFile
from promgun.store.run_directory import RunDirectory
from promgun.store.slot_file import MASTER_FILE_SIZE, SlotFile
from promgun.store.slot_lock import SlotLock
from promgun.store.worker_table import WorkerTable

if TYPE_CHECKING:
    from typing import Protocol

    from promgun.store.files import ValueFile, WrittenValueFile

    class ProcessHome(Protocol):
        """What :class:`ProcessStore` needs of the place where its process stores."""

        number: int

        @property
        def rows(self) -> RowFile:
            """The rows of this process."""

        def open_value_file(self, prefix: str) -> ValueFile:
            """Open the value file of one type of the application's metrics; raises ``OSError``."""

        def flush(self) -> None:
            """Write out values that are not in mapped memory; raises ``OSError``."""

        def close(self) -> None:
            """Close descriptors; places handed out stay usable."""


_MOST_MASTERS = 64
_LIVE = "gauge_live"
_NS = 1_000_000_000


class SlotHome:
    """Where a worker, or a child that the application forked, stores: in its slot, as the workers' user.

    Raises ``OSError`` when the slot's file cannot be opened or made; the board then stays in private memory.
    """

    def __init__(self, directory: RunDirectory, lock: SlotLock, board: Board) -> None:
        self.number = lock.number
        self._lock = lock
        self._directory = directory
        self._remove_live_gauges()
        link_masters(directory)
        self.file = SlotFile(str(directory.slots / str(lock.number)))
        board.move_into(self.file.memory[:BOARD_SIZE], lock.owner_ended_at or monotonic_ns())

    @property
    def rows(self) -> RowFile:
        """The rows of the slot: a different object after the file had been cut."""
        return self.file.rows

    def heal_lock(self) -> bool:
        """Make the slot's lock file again if it is gone; return whether it was gone. Raises ``OSError``."""
        return self._lock.heal(self._directory.slots)

    def _remove_live_gauges(self) -> None:
        beginning = f"{self.number}.{_LIVE}"
        with contextlib.suppress(OSError):
            for name in os.listdir(self._directory.slots):
                if name.startswith(beginning):
                    os.unlink(self._directory.slots / name)
                    _, _, kind = name.partition(".")
                    unlink_file(self._directory, str(self.number), kind)

    def open_value_file(self, prefix: str) -> ValueFile:
        """Open the value file of one type of the application's metrics, and link it for stock readers; raises
        ``OSError``.
        """
        path = self._directory.slots / f"{self.number}.{prefix}"
        file: ValueFile = _files().ValueFile(path, Owner())
        link_file(self._directory, path, str(self.number), prefix)
        return file

    def flush(self) -> None:
        """Do nothing: everything is in mapped memory."""

    def close(self) -> None:
        """Do nothing: no descriptor stays open."""


class MasterHome:
    """Where a master stores: its own files, in a directory where only masters can write.

    Raises ``OSError`` when they cannot be opened or made.
    """

    def __init__(self, directory: RunDirectory, board: Board) -> None:
        self._directory = directory
        self._value_files: dict[str, WrittenValueFile] = {}
        folder_fd = directory.open_master()
        try:
            self.number, fd = _claim_master(folder_fd, directory.owner)
            table = f"m{self.number}.workers"
            self.table = WorkerTable(_open_owned(folder_fd, table, directory.owner), directory.master / table)
        finally:
            os.close(folder_fd)
        self._file = MasterFile(fd, MASTER_FILE_SIZE, directory.master / f"m{self.number}")
        self.rows = RowFile(self._file.memory, BOARD_SIZE, lambda _offset, _size: None, reserved=self._file.length)
        board.move_into(self._file.memory[:BOARD_SIZE], monotonic_ns())
        self._board = board

    def open_value_file(self, prefix: str) -> ValueFile:
        """Open the value file of one type of the application's metrics, which ``--preload`` makes in the master."""
        name = f"m{self.number}.{prefix}"
        folder_fd = self._directory.open_master()
        try:
            # The workers' user may have changed where the run's path leads: the path is not used where the open folder
            # can be.
            inside = Path(f"/proc/self/fd/{folder_fd}")
            path = (inside if inside.is_dir() else self._directory.master) / name
            file: WrittenValueFile = _files().WrittenValueFile(path, Owner(None, self._directory.owner.gid), mode=0o640)
        finally:
            os.close(folder_fd)
        file.path = self._directory.master / name
        self._value_files[prefix] = file
        return file

    def flush(self) -> None:
        """Write out changed values; raises ``OSError``."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._board.cells[Cell.OWN_CPU_USER] = int(used.ru_utime * _NS)
        self._board.cells[Cell.OWN_CPU_SYSTEM] = int(used.ru_stime * _NS)
        self._file.flush(self.rows.end)
        self.table.flush()
        for file in self._value_files.values():
            file.flush()

    def close(self) -> None:
        """Close the file in a child, which must not hold it."""
        self._file.close()
        self.table.close()


def _files() -> ModuleType:
    """Return the module of the application's files: its first metric loads it, upkeep after a second. Raises
    ``OSError`` in a process that can no longer read this package.
    """
    try:
        return import_module("promgun.store.files")
    except ImportError as error:
        raise OSError(errno.EACCES, str(error)) from error


def _claim_master(folder_fd: int, owner: Owner) -> tuple[int, int]:
    """Lock the lowest number that no living master has; return it and its file. Raises ``OSError``."""
    for number in range(_MOST_MASTERS):
        fd = _open_owned(folder_fd, f"m{number}", owner)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        return number, fd
    raise OSError(errno.EAGAIN, f"{_MOST_MASTERS} masters, the most there can be, use this store")


def _open_owned(folder_fd: int, name: str, owner: Owner) -> int:
    """Return a descriptor of a master's file, which the workers' group may read; raises ``OSError``."""
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=folder_fd)
    os.fchmod(fd, 0o640)
    if os.geteuid() == 0 and owner.gid is not None:
        os.fchown(fd, -1, owner.gid)
    return fd
