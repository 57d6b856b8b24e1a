"""A label set over all files of rows: what stands in each, and the sums, made when somebody first asks for them.

A page shows no fine histogram and a status no sizes: what nobody asks for is not added up.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from functools import lru_cache, reduce
from itertools import chain
from operator import add
from struct import Struct
from typing import Any

from promgun.store.row_format import RowSchema

Numbers = tuple[float, ...]
Unpack = Callable[[bytes], Numbers]
_MOST_SCHEMAS = 256
#: From so many files on columns are added up one by one: of 128 files that takes a third of the time.
_MANY_FILES = 12


class RowTotal:
    """A label set over all files: its total :attr:`numbers` as they are shown, by cell of its schema, its earliest
    birth.

    A birth is in nanoseconds of the monotonic clock. ``parts`` are the cells in each file as they stand there, by the
    file's ``order``: numbers would take four times as much memory.
    """

    __slots__ = ("_numbers", "_parts", "birth", "schema", "shown", "shown_of", "values")

    def __init__(
        self,
        schema: RowSchema,
        values: tuple[str, ...],
        birth: int,
        numbers: Numbers | None = None,
        parts: Mapping[int, bytes] | None = None,
    ) -> None:
        self.schema = schema
        self.values = values
        self.birth = birth
        self._numbers = numbers
        self._parts = dict(parts or {})
        #: what was last made of ``numbers`` for a page, and of which: most label sets do not change between pages
        self.shown: Any = None
        self.shown_of: object = None

    @property
    def is_empty(self) -> bool:
        """Whether no file has the label set."""
        return not self._parts

    def set_part(self, order: int, cells: bytes) -> None:
        """Have a file's cells replaced."""
        self._parts[order] = cells
        self._numbers = None

    def drop_part(self, order: int) -> None:
        """Have a file's cells left out."""
        self._parts.pop(order, None)
        self._numbers = None

    @property
    def numbers(self) -> Numbers:
        """The total numbers: the same object until a part changes."""
        numbers = self._numbers
        if numbers is None:
            parts = self._parts
            numbers = self._numbers = self.schema.shown(_added([parts[order] for order in sorted(parts)], self.schema))
        return numbers

    def part(self, order: int) -> bytes:
        """Return the cells in one file; raises ``KeyError``."""
        return self._parts[order]

    def cells_by_file(self) -> list[tuple[int, Numbers]]:
        """Return the cells in each file with its ``order``, in that order."""
        unpack = unpacker(self.schema.cells)
        return [(order, unpack(self._parts[order])) for order in sorted(self._parts)]


def _added(parts: list[bytes], schema: RowSchema) -> Numbers:
    """Return the sums of cells, always added in the order of ``parts``: no sum sinks by a rounding error."""
    cells = schema.cells
    if len(parts) < _MANY_FILES:
        unpack = unpacker(cells)
        first, *others = map(unpack, parts)
        for numbers in others:
            first = tuple(map(add, first, numbers))
        return first
    every = array("d", b"".join(parts))
    sums = [sum(every[cell::cells]) for cell in range(cells)]
    # What are no whole numbers: since Python 3.12 sum() corrects rounding errors, and may so lower a sum.
    for cell in _fractions(schema):
        sums[cell] = reduce(add, every[cell::cells])
    return tuple(sums)


@lru_cache(maxsize=_MOST_SCHEMAS)
def _fractions(schema: RowSchema) -> tuple[int, ...]:
    """Return the cells that need not be whole numbers: all but those of buckets."""
    buckets = chain.from_iterable(
        range(schema.firsts[group.family], schema.firsts[group.family] + group.counts)
        for group in schema.groups
        if group.bounds
    )
    whole = frozenset(buckets)
    return tuple(cell for cell in range(schema.cells) if cell not in whole)


@lru_cache(maxsize=_MOST_SCHEMAS)
def unpacker(cells: int) -> Unpack:
    """Return what makes numbers of a row's cells."""
    return Struct(f"={cells}d").unpack_from
