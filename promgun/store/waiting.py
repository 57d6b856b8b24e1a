"""What waits in private memory for a place in a file, and how it moves there without losing an update."""

from __future__ import annotations

from array import array
from collections.abc import Callable, MutableSequence, Sequence

Cells = memoryview | MutableSequence[float]
#: Told of the cells and indexes where an owner of values goes on.
Settled = Callable[[Cells, Sequence[int]], None]


class Waiting:
    """Values of one file that have no place in it yet; each has a cell of its own, and its time stamp in the next.

    ``counted`` values are added to what stands in the file; others (gauges) replace it, unless nobody touched them.
    """

    def __init__(self, prefix: str, keys: Sequence[str], settled: Settled, *, counted: bool) -> None:
        self.prefix = prefix
        self.keys = tuple(keys)
        self.cells: MutableSequence[float] = array("d", bytes(16 * len(self.keys)))
        self.indexes = range(0, 2 * len(self.keys), 2)
        self._settled = settled
        self._counted = counted
        self._moved = array("d", bytes(8 * len(self.keys)))
        self._target: tuple[Cells, Sequence[int]] = (self.cells, self.indexes)

    def move(self, cells: Cells, indexes: Sequence[int]) -> None:
        """Go on in a file: updates first, then what was gathered until now."""
        self._target = (cells, indexes)
        self._settled(cells, indexes)
        if not self._counted:
            self._replace(cells, indexes)
        self.sweep()

    def _replace(self, cells: Cells, indexes: Sequence[int]) -> None:
        for position, (private, index) in enumerate(zip(self.indexes, indexes, strict=True)):
            value, stamp = self.cells[private], self.cells[private + 1]
            if value or stamp:
                cells[index] = value
                cells[index + 1] = stamp
                self._moved[position] = value

    def sweep(self) -> None:
        """Carry over what came in since: a thread may have looked up the private cell just before the move."""
        cells, indexes = self._target
        for position, (private, index) in enumerate(zip(self.indexes, indexes, strict=True)):
            value = self.cells[private]
            late = value - self._moved[position]
            if late:
                self._moved[position] = value
                cells[index] += late
