"""The rows of one file in blocks of a few that follow one another: all cells of a block are taken out by one call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import compress, groupby
from operator import ne
from struct import Struct
from typing import NamedTuple

from promgun.store.row_format import RowSchema
from promgun.store.row_total import RowTotal

_MOST_SCHEMAS = 256
#: A block of more would be taken apart for one row that changed, one of fewer would be looked at for each few rows.
_MOST_ROWS = 16
#: The byte of a float64 with its sign and the upper seven bits of its exponent, and what it is from 1e154 on.
_UPPER_BYTE = 7 if sys.byteorder == "little" else 0
_HUGE = 0x7F


class Row(NamedTuple):
    """A row of a file: where its cells are, and the total that they are added to."""

    begin: int
    end: int
    total: RowTotal


class RowBlock:
    """Rows of a file, their cells at the last reading, and how often ``family`` was counted in them."""

    __slots__ = ("_cells", "_counted", "_counts_bad", "_family", "_rows", "_take", "begin", "count", "end")

    def __init__(self, family: str) -> None:
        self._family = family
        self._rows: list[Row] = []
        self._cells: tuple[bytes, ...] = ()
        self._take: Callable[[bytes], tuple[bytes, ...]] | None = None
        self._counted: Callable[[bytes], tuple[float, ...]] | None = None
        #: whether what a row counts is not what its cells say: they were cut off, or cannot be right
        self._counts_bad = False
        self.begin = 0
        self.end = 0
        self.count = 0.0

    @property
    def is_full(self) -> bool:
        """Whether further rows need another block."""
        return len(self._rows) >= _MOST_ROWS

    def totals(self) -> Iterator[RowTotal]:
        """Return the total of each row."""
        return (row.total for row in self._rows)

    def add(self, row: Row) -> None:
        """Add a row behind the last; its cells are read at the next :meth:`read`."""
        if not self._rows:
            self.begin = row.begin
        self.end = row.end
        self._rows.append(row)
        self._cells += (b"",)
        self._take = None

    def read(self, data: bytes, order: int, checked: Callable[[int, bytes], bytes]) -> None:
        """Give the totals what has changed in the file's content, ``data``.

        ``checked`` is called with the beginning and the cells of a row in which some are suspect, and returns them as
        they are to be added.
        """
        take = self._take or self._compile()
        cells = take(data) if len(data) >= self.end else self._cells_of_cut(data)
        changed = list(map(ne, self._cells, cells))
        # The sign and the upper bits of the exponent of each: no number that counts something has one of these.
        upper = b"".join(compress(cells, changed))[_UPPER_BYTE::8]
        is_suspect = _HUGE in upper or not upper.isascii()
        for (begin, _, total), own in compress(zip(self._rows, cells, strict=True), changed):
            total.set_part(order, checked(begin, own) if is_suspect else own)
        self._cells = cells
        self._counts_bad = self._counts_bad or is_suspect or len(data) < self.end
        if self._counts_bad:
            self.count = sum(self._counts_by_row(order))
        elif self._counted is not None:
            self.count = sum(self._counted(data))

    def _compile(self) -> Callable[[bytes], tuple[bytes, ...]]:
        takes, counts, at = ["="], ["="], 0
        for row in self._rows:
            gap = row.begin - at
            takes.append(f"{gap}x{row.end - row.begin}s")
            counts.append(f"{gap}x{_counted_form(row.total.schema, self._family)}")
            at = row.end
        self._counted = Struct("".join(counts)).unpack_from if "d" in "".join(counts) else None
        take = self._take = Struct("".join(takes)).unpack_from
        return take

    def _cells_of_cut(self, data: bytes) -> tuple[bytes, ...]:
        """Return the cells of rows in a file that was cut: of those that are not there any more the last ones."""
        return tuple(
            [
                data[row.begin : row.end] if row.end <= len(data) else last
                for row, last in zip(self._rows, self._cells, strict=True)
            ]
        )

    def _counts_by_row(self, order: int) -> Iterator[float]:
        for row in self._rows:
            counted = counter(row.total.schema, self._family)
            if counted is not None:
                yield sum(counted(row.total.part(order)))


@lru_cache(maxsize=_MOST_SCHEMAS)
def counter(schema: RowSchema, family: str) -> Callable[[bytes], tuple[float, ...]] | None:
    """Return what takes the cells out of a row whose sum is what is shown of a counter; ``None`` if it is not there."""
    form = _counted_form(schema, family)
    return Struct(f"={form}").unpack_from if "d" in form else None


@lru_cache(maxsize=_MOST_SCHEMAS)
def _counted_form(schema: RowSchema, family: str) -> str:
    """Return the form of a row, in the letters of ``struct``, in which only these cells are numbers."""
    first = schema.firsts.get(family)
    if first is None:
        return f"{8 * schema.cells}x"
    cells = {first, *range(schema.cells)[schema.included.get(first, slice(0, 0))]}
    runs = groupby(range(schema.cells), cells.__contains__)
    lengths = [(is_counted, len(list(run))) for is_counted, run in runs]
    return "".join([f"{length}d" if is_counted else f"{8 * length}x" for is_counted, length in lengths])
