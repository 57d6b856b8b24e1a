"""Reads the files of all masters and slots of a run, again and again: the board and the rows of each by one opening.

A file stays open between two readings. It is read through its descriptor as long as its folder names the same file
(device and inode, which no other file can have while it is open); else it is opened anew, through no link. Nothing is
mapped: a file that is cut meanwhile gives fewer bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from promgun.store.board import SIZE as BOARD_SIZE
from promgun.store.board import BoardView, Cell
from promgun.store.folder_listing import Entries, FolderListing
from promgun.store.run_directory import MASTER, SLOTS
from promgun.store.run_reader import master_of, master_slot, read_open_board, slot_of
from promgun.store.slot_file import FILE_SIZE, data_end
from promgun.system.kept_files import KeptFiles
from promgun.system.safe_open import open_regular, opened_folder

_FOLDERS = ((MASTER, master_of, master_slot), (SLOTS, slot_of, int))


class SlotContent(NamedTuple):
    """A file at one moment: its board as its owner wrote it, and what stands behind that.

    ``identity`` is device, inode and edition; ``size`` are the bytes that it takes.
    """

    board: BoardView
    identity: tuple[int, int, int]
    size: int
    rows: bytes


#: The slot's number, its file's name and inode.
_Named = tuple[int, str, int]


class _Folder:
    """A folder with files of slots."""

    def __init__(self, path: Path, number_of: Callable[[str], int | None], slot_of: Callable[[int], int]) -> None:
        self.path = path
        self._number_of = number_of
        self._slot_of = slot_of
        self._listing = FolderListing()
        self._entries: Entries | None = None
        self._files: list[_Named] = []

    def files(self, folder_fd: int) -> tuple[int, list[_Named]]:
        """Return the device and the files, in the order of slots; raises ``OSError``."""
        entries = self._listing.read(folder_fd)
        if entries is not self._entries:
            numbered = [(self._number_of(name), name, inode) for name, inode in entries]
            self._files = sorted(
                (self._slot_of(number), name, inode) for number, name, inode in numbered if number is not None
            )
            self._entries = entries
        return os.fstat(folder_fd).st_dev, self._files


class SlotContents:
    """Reads one run, from one thread at a time. Without ``kept`` no file stays open."""

    def __init__(self, run: Path, kept: KeptFiles | None = None) -> None:
        self._folders = [_Folder(run / part, *names) for part, *names in _FOLDERS]
        self._kept = KeptFiles(0) if kept is None else kept

    def read(self) -> list[SlotContent]:
        """Return the content of each file that is one: masters' first, then slots' in order. Never raises."""
        found: list[SlotContent] = []
        for folder in self._folders:
            with suppress(OSError), opened_folder(folder.path) as folder_fd:
                found += self._read_files(folder_fd, *folder.files(folder_fd))
        return found

    def _read_files(self, folder_fd: int, device: int, files: list[_Named]) -> Iterator[SlotContent]:
        for slot, name, inode in files:
            key = device, inode
            fd = self._kept.get(key)
            is_kept = fd is not None
            try:
                if fd is None:
                    fd = open_regular(folder_fd, name)
                status = os.fstat(fd)
                if not is_kept:
                    # Not where folders tell other numbers than files (overlayfs), nor if it was replaced just now.
                    is_kept = (status.st_dev, status.st_ino) == key and self._kept.keep(key, fd)
                content = _content(fd, slot, status)
            except OSError:
                content = None
            finally:
                if fd is not None and not is_kept:
                    os.close(fd)
            if content is not None:
                yield content


def _content(fd: int, slot: int, status: os.stat_result) -> SlotContent | None:
    """Return what is in an open file; ``None`` if it is none of ours. Raises ``OSError``."""
    if status.st_size > FILE_SIZE:
        return None
    board = read_open_board(fd, slot)
    if board is None:
        return None
    size = status.st_blocks * 512
    rows = os.pread(fd, data_end(fd, BOARD_SIZE, size) - BOARD_SIZE, BOARD_SIZE)
    return SlotContent(board, (status.st_dev, status.st_ino, board[Cell.EDITION]), size, rows)
