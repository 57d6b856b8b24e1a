"""Values that wait in private memory for a place in a file, and how they move there without losing an update."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any

from promgun.store.board import Cell

#: Cells and the indexes of values in them.
Places = tuple[Any, Sequence[int]]
#: Told of the cells and indexes in which the owner of values goes on.
Placed = Callable[[Any, Sequence[int]], None]

_NO_SPACE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMSGSIZE, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
)


class PendingValues:
    """Values that have no place in a file yet: ``count`` cells, with a time stamp behind each where ``stamped``.

    ``find`` is asked for the places and raises ``OSError`` while there are none; of one ``file`` that gave none nothing
    more is tried in the same call. Counted values are added to what stands in the file; others (``replaces``: gauges)
    take its place, unless nobody touched them.
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
        """Go on in a file: new updates first, then what was gathered until now."""
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
    """All values of a process that wait, in order; what has just moved is looked after once more."""

    def __init__(self) -> None:
        # Dictionaries because each step of theirs is atomic, whatever thread adds meanwhile.
        self._waiting: dict[PendingValues, None] = {}
        self._moved: dict[PendingValues, None] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, values: PendingValues) -> None:
        """Have values wait."""
        self._waiting[values] = None

    def clear(self) -> None:
        """Forget everything: it belongs to the process that we were forked from."""
        self._waiting.clear()
        self._moved.clear()

    def move_in(self, lock: RLock) -> None:
        """Move what finds a place now."""
        for moved in list(self._moved):
            moved.carry_over()
            self._moved.pop(moved, None)
        full = set()
        for values in list(self._waiting):
            if values.file in full:
                continue
            with lock:
                if values not in self._waiting:
                    # another thread was faster
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
    """Errors of the store: which counter they go to, and one message an episode."""

    def __init__(self) -> None:
        self._known = False
        self._unlogged = ""

    def note(self, error: OSError, path: object) -> Cell:
        """Note an error; return the board's cell that counts it."""
        if not self._known:
            self._known = True
            self._unlogged = (
                f"Metrics cannot be stored ({error.strerror}: {error.filename or path}); "
                "requests are served, values wait in memory until there is space"
            )
        return Cell.ERRORS_NO_SPACE if error.errno in _NO_SPACE else Cell.ERRORS_PERMISSION

    def log_once(self, warn: Callable[[str], None] | None) -> None:
        """Log what has not been logged yet, once there is a log."""
        if self._unlogged and warn is not None:
            message, self._unlogged = self._unlogged, ""
            warn(message)

    def forked(self) -> None:
        """Leave it to the parent to log what happened before the fork."""
        self._unlogged = ""

    def over(self) -> None:
        """End the episode: the next error is logged again."""
        self._known = False
