"""What waits in private memory for a place in a file, and how it moves there without losing an update."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any

from promgun.store.board import Cell

if TYPE_CHECKING:
    from promgun.store.directory import StoreDirectory

#: Told of the cells and indexes in which an owner of values goes on.
Settled = Callable[[Any, Sequence[int]], None]
Keys = Callable[[], Sequence[str]]

_NO_SPACE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMSGSIZE, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
)


class Waiting:
    """Values of one file that have no place in it yet, each with its time stamp in the cell behind it.

    Counted values are added to what stands in the file; others (gauges) take its place, unless nobody touched them.
    ``keys`` is asked when there is a place: they may name the slot, which is known only then.
    """

    def __init__(self, prefix: str, keys: Keys, settled: Settled) -> None:
        self.prefix = prefix
        self.keys = keys
        count = len(keys())
        self.cells: Any = array("d", bytes(16 * count))
        self.indexes: Sequence[int] = range(0, 2 * count, 2)
        self._settled = settled
        self._moved = array("d", bytes(8 * count))
        self._target: tuple[Any, Sequence[int]] = (self.cells, self.indexes)

    def move(self, cells: Any, indexes: Sequence[int]) -> None:
        """Go on in a file: new updates first, then what was gathered until now."""
        self._target = (cells, indexes)
        self._settled(cells, indexes)
        if self.prefix.startswith("gauge"):
            self._replace(cells, indexes)
        self.sweep()

    def _replace(self, cells: Any, indexes: Sequence[int]) -> None:
        for position, (private, index) in enumerate(zip(self.indexes, indexes, strict=True)):
            value, stamp = self.cells[private], self.cells[private + 1]
            if value or stamp:
                cells[index] = self._moved[position] = value
                cells[index + 1] = stamp

    def sweep(self) -> None:
        """Carry over what came since: a thread may have looked up the private cell just before the move."""
        cells, indexes = self._target
        for position, (private, index) in enumerate(zip(self.indexes, indexes, strict=True)):
            value, moved = self.cells[private], self._moved[position]
            # NaN differs from itself, and nothing can be added to it.
            if value == moved or moved != moved:  # noqa: PLR0124 - the test for NaN
                continue
            late = value - moved
            self._moved[position] = value
            cells[index] += late


class PendingSeries:
    """All that waits in a process, in order; what has just moved is looked after once more."""

    def __init__(self) -> None:
        # Dictionaries because each step of theirs is atomic, whatever thread adds meanwhile.
        self._waiting: dict[Waiting, None] = {}
        self._moved: dict[Waiting, None] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def add(self, waiting: Waiting) -> None:
        """Take something in."""
        self._waiting[waiting] = None

    def clear(self) -> None:
        """Forget everything: it belongs to the process that we were forked from."""
        self._waiting.clear()
        self._moved.clear()

    def move_in(self, places: Callable[[str, Keys], tuple[Any, list[int]]], lock: RLock) -> None:
        """Move what finds a place now; of a file that gave none, nothing more is tried in this call."""
        for moved in list(self._moved):
            moved.sweep()
            self._moved.pop(moved, None)
        full = set()
        for waiting in list(self._waiting):
            if waiting.prefix in full:
                continue
            with lock:
                if waiting not in self._waiting:
                    # another thread was faster
                    continue
                try:
                    cells, indexes = places(waiting.prefix, waiting.keys)
                except OSError:
                    full.add(waiting.prefix)
                    continue
                waiting.move(cells, indexes)
                self._moved[waiting] = None
                self._waiting.pop(waiting, None)


class StoreErrors:
    """Errors of the store: which counter they go to, and one message an episode."""

    def __init__(self) -> None:
        self._known = False
        self._unlogged = ""

    def note(self, error: OSError, directory: StoreDirectory | None) -> Cell:
        """Note an error; return the board's cell that counts it."""
        if not self._known:
            self._known = True
            where = error.filename or (directory and directory.path)
            self._unlogged = (
                f"Metrics cannot be stored ({error.strerror}: {where}); "
                "requests are served, values wait in memory until there is space"
            )
        return Cell.ERRORS_NO_SPACE if error.errno in _NO_SPACE else Cell.ERRORS_PERMISSION

    def log_once(self, warn: Callable[[str], None] | None) -> None:
        """Log the first error of an episode once; without ``warn`` it waits until there is a log."""
        if self._unlogged and warn is not None:
            message, self._unlogged = self._unlogged, ""
            warn(message)

    def inherited(self) -> None:
        """Leave it to the parent to say what happened before the fork."""
        self._unlogged = ""

    def over(self) -> None:
        """End the episode."""
        self._known = False
