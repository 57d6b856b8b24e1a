"""Values that wait in private memory for a place in a file, and their move there without losing an update."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any

from promgun.store.board import Cell

#: The place of a value: float cells (a mapped file, or private memory) and the value's index. The time stamp of an
#: application's value is the next cell.
Place = tuple[Any, int]
#: Cells, and the indexes of some values in them.
Places = tuple[Any, Sequence[int]]
#: Called with the cells and indexes at which values will be stored from now on.
Placed = Callable[[Any, Sequence[int]], None]

_NO_SPACE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMSGSIZE, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
)


class PendingValues:
    """Values without a place in a file yet: ``count`` cells, each followed by a time stamp if ``stamped``.

    ``find`` returns the places and raises ``OSError`` while there are none; one attempt to move values skips the rest
    of a ``file`` after the first failure in it. Values that count are added to those in the file; others (``replaces``:
    gauges) overwrite them, if they were ever set.
    """

    def __init__(
        self,
        file: str,
        find: Callable[[], Places],
        placed: Placed,
        count: int,
        *,
        stamped: bool = False,
        replaces: bool = False,
    ) -> None:
        step = 2 if stamped else 1
        self.file = file
        self.find = find
        self.cells: Any = array("d", bytes(8 * step * count))
        self.indexes: Sequence[int] = range(0, step * count, step)
        self._placed = placed
        self._replaces = replaces
        self._moved = array("d", bytes(8 * count))
        self._target: Places = (self.cells, self.indexes)

    def move(self, cells: Any, indexes: Sequence[int]) -> None:
        """Move to the cells of a file: new updates go there first, then the values gathered so far are added."""
        self._target = (cells, indexes)
        self._placed(cells, indexes)
        if self._replaces:
            self._replace(cells, indexes)
        self.carry_over()

    def _replace(self, cells: Any, indexes: Sequence[int]) -> None:
        for position, (private, index) in enumerate(zip(self.indexes, indexes, strict=True)):
            value, stamp = self.cells[private], self.cells[private + 1]
            if value or stamp:
                cells[index] = self._moved[position] = value
                cells[index + 1] = stamp

    def carry_over(self) -> None:
        """Add later updates: a thread may have looked up the private cell just before the move."""
        cells, indexes = self._target
        for position, (private, index) in enumerate(zip(self.indexes, indexes, strict=True)):
            value, moved = self.cells[private], self._moved[position]
            # NaN differs from itself, and adding to it changes nothing.
            if value == moved or moved != moved:  # noqa: PLR0124 - the test for NaN
                continue
            late = value - moved
            self._moved[position] = value
            cells[index] += late


class PendingSeries:
    """All waiting values of a process, in order; those just moved are checked once more for late updates."""

    def __init__(self) -> None:
        # Dictionaries, because each operation on them is atomic, even while another thread adds.
        self._waiting: dict[PendingValues, None] = {}
        self._moved: dict[PendingValues, None] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def lost(self) -> int:
        """How many series would be lost if the process ended now: those that wait and were counted in."""
        return sum(any(values.cells) for values in list(self._waiting))

    def add(self, values: PendingValues) -> None:
        """Have values wait."""
        self._waiting[values] = None

    def clear(self) -> None:
        """Forget everything, in a forked child: the values belong to its parent."""
        self._waiting.clear()
        self._moved.clear()

    def move_in(self, lock: RLock) -> None:
        """Move the values whose file can be had now."""
        for moved in list(self._moved):
            moved.carry_over()
            self._moved.pop(moved, None)
        full = set()
        for values in list(self._waiting):
            if values.file in full:
                continue
            with lock:
                if values not in self._waiting:
                    # another thread moved it first
                    continue
                try:
                    cells, indexes = values.find()
                except OSError:
                    full.add(values.file)
                    continue
                values.move(cells, indexes)
                self._moved[values] = None
                self._waiting.pop(values, None)


class StoreErrors:
    """Counts errors of the store and logs one message an episode, from the first error until all values are stored."""

    def __init__(self) -> None:
        self._known = False
        self._unlogged = ""
        #: the cell of the board that counts errors like the last one
        self.cell = Cell.ERRORS_NO_SPACE

    def note(self, error: OSError, path: object) -> int:
        """Note an error; return the cell of the board that counts such errors."""
        if not self._known:
            self._known = True
            self._unlogged = (
                f"Metrics cannot be stored ({error.strerror}: {error.filename or path}); "
                "requests are served, and values are kept in memory until they can be stored"
            )
        self.cell = Cell.ERRORS_NO_SPACE if error.errno in _NO_SPACE else Cell.ERRORS_PERMISSION
        return self.cell

    def log_once(self, warn: Callable[[str], None] | None) -> None:
        """Log the episode if that has not been done, and if there is a log."""
        if self._unlogged and warn is not None:
            message, self._unlogged = self._unlogged, ""
            warn(message)

    def forked(self) -> None:
        """Leave it to the parent to log errors from before the fork."""
        self._unlogged = ""

    def over(self) -> None:
        """End the episode: the next error is logged again."""
        self._known = False
