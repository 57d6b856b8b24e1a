"""Slots: who may write which files, decided by the kernel through ``flock``.

A process owns slot *n* while it, or a parent that forked it for the purpose, holds the lock on ``slot-<n>.lock``. The
kernel frees the lock
when the last holder ends, also by SIGKILL.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from promgun.store.board import SIZE, Board, BoardView, Role, is_alive, monotonic_ns, parse_board
from promgun.store.files import Owner
from promgun.system.safe_open import open_directory, read_regular

SLOT_FILE = re.compile(r"slot-(\d{1,6})\.lock")
VALUE_FILE = re.compile(r"(counter|histogram|summary|gauge_[a-z]+)_slot(\d{1,6})\.db")


def slot_name(number: int) -> str:
    """Return the process identity of a slot, as it stands in file names."""
    return f"slot{number}"


class Slot:
    """A claim on a slot: an open, locked file and the board in it."""

    def __init__(self, directory: Path, number: int, fd: int, owner: Owner) -> None:
        self.directory = directory
        self.number = number
        self._path = directory / f"slot-{number}.lock"
        self.owner = owner
        self._fd: int | None = fd
        self.board = Board(-1, owner)
        self.share_board()

    @property
    def fd(self) -> int | None:
        """The locked descriptor, ``None`` once released."""
        return self._fd

    def take_over(self, role: Role) -> None:
        """Begin as the owner: settle the last owner's books, remove its live gauges, sign the board."""
        self.clear()
        self.board.occupy(role, monotonic_ns())

    def clear(self) -> None:
        """Remove what speaks of a running process: live gauges and the live half of the board."""
        ending = f"_{slot_name(self.number)}.db"
        with contextlib.suppress(OSError):
            for name in os.listdir(self.directory):
                if name.startswith("gauge_live") and name.endswith(ending):
                    os.unlink(self.directory / name)
        self.board.fold_last_owner(monotonic_ns())

    def share_board(self) -> None:
        """Move a board that found no space at first into the file, if there is space now."""
        if self.board.shared or self._fd is None:
            return
        # Through a description of its own: a mapping keeps the one it was made from open, and with that its lock
        # (flock(2)) in every process that inherits the mapping.
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                self.board.share(fd, self.owner)
            finally:
                os.close(fd)

    def put_board(self, board: Board) -> None:
        """Go on with a board that was kept while there was no slot."""
        self.board = board
        self.share_board()

    def release(self) -> None:
        """Let go of the slot; the next process may take it unless somebody else still holds the same claim."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def free(self) -> None:
        """Let go of the slot for everybody: its owner is gone, and whoever else holds the claim was forked a moment ago
        and has not come to close it yet.
        """
        if self._fd is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        self.release()

    def __del__(self) -> None:
        self.release()


def claim(directory: Path, owner: Owner) -> Slot:
    """Take the lowest free slot; raises ``OSError`` when the directory cannot be written."""
    for number in itertools.count():
        try:
            fd = os.open(
                directory / f"slot-{number}.lock",
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
                0o600,
            )
        except OSError as error:
            # a directory, a symbolic link, a socket in its place: nobody can have this slot
            if error.errno not in {errno.EISDIR, errno.ELOOP, errno.ENXIO}:
                raise
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            owner.take(fd)
        except BlockingIOError:
            os.close(fd)
            continue
        except BaseException:
            os.close(fd)
            raise
        return Slot(directory, number, fd, owner)
    raise AssertionError  # pragma: no cover - counting has no end


def read_board(directory_fd: int, number: int, attempts: int = 5) -> BoardView | None:
    """Return a copy of a slot's board, taken again (a few times) while a change is under way; ``None`` when there is
    none.
    """
    view = None
    for _ in range(attempts):
        taken = monotonic_ns()
        data = read_regular(directory_fd, f"slot-{number}.lock", SIZE)
        view = parse_board(number, data, taken) if data else None
        if view is None or view.consistent:
            break
    return view


def read_boards(directory: Path) -> Iterator[tuple[BoardView, bool]]:
    """Yield every board of a store in slot order, with whether its owner lives."""
    for view in read_views(directory):
        yield view, is_alive(view)


def read_views(directory: Path) -> Iterator[BoardView]:
    """Yield every board of a store in slot order."""
    with suppress(OSError), open_directory(directory) as directory_fd:
        matches = (SLOT_FILE.fullmatch(name) for name in os.listdir(directory_fd))
        for number in sorted(int(match[1]) for match in matches if match):
            view = read_board(directory_fd, number)
            if view is not None:
                yield view


def read_board_of(directory: Path, number: int) -> BoardView | None:
    """Return a copy of one board of a store; ``None`` when there is none."""
    try:
        with open_directory(directory) as directory_fd:
            return read_board(directory_fd, number)
    except OSError:
        return None
