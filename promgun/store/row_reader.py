"""Adds up the rows of all slots; what did not change since the last reading is not parsed again.

Sums are made in the order of the files, so the order of float additions is fixed, and no total decreases by a rounding
error.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from operator import add
from struct import Struct
from typing import Any, NamedTuple

from promgun.store.row_format import RowSchema
from promgun.store.row_scan import RowHead, scan_rows

Numbers = tuple[float, ...]
Unpack = Callable[[bytes], Numbers]
_PAGE = 4096
#: The byte of a float64 with its sign and the upper seven bits of its exponent, and what it is from 1e154 on.
_UPPER_BYTE = 7 if sys.byteorder == "little" else 0
_HUGE = 0x7F
#: The limits of all files together: bytes, files, schemas and label sets. The rest is left out, and counted once.
MOST_BYTES = 64 << 20
MOST_FILES = 4096
MOST_SCHEMAS = 256
MOST_SETS = 50_000


@dataclass(slots=True, eq=False, repr=False)
class RowTotal:
    """A label set over all files: its total ``numbers`` as they are shown, by cell of its schema, its earliest birth.

    A birth is in nanoseconds of the monotonic clock.
    """

    schema: RowSchema
    values: tuple[str, ...]
    birth: int
    numbers: Numbers = ()
    #: the cells in each file as they stand there, by the file's ``order``: numbers would take four times as much memory
    parts: dict[int, bytes] = field(default_factory=dict)
    #: what was last made of ``numbers`` for a page, and of which numbers: most label sets do not change between pages
    shown: Any = None
    shown_of: object = None

    def cells_by_file(self) -> list[tuple[int, Numbers]]:
        """Return the cells in each file with its ``order``, in that order."""
        unpack = _unpacker(self.schema.cells)
        return [(order, unpack(self.parts[order])) for order in sorted(self.parts)]


class _Row(NamedTuple):
    """A row of a file: where its cells are, the total that they are added to, and what takes those out of them that say
    how often the family was counted that is summed by file.
    """

    begin: int
    end: int
    total: RowTotal
    counted: Unpack | None


@dataclass(slots=True, eq=False, repr=False)
class _KnownFile:
    """The known state of a file: its identity, its last content, how far it was parsed, and its rows.

    ``on_page`` has the indexes of the rows that a page of the file has a part of, ``counts`` for each row what is
    summed by file.
    """

    identity: object
    end: int
    data: bytes = b""
    schemas: dict[int, RowSchema] = field(default_factory=dict)
    rows: list[_Row] = field(default_factory=list)
    on_page: dict[int, list[int]] = field(default_factory=dict)
    counts: list[float] = field(default_factory=list)
    bad_rows: set[int] = field(default_factory=set)
    left_out: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RowContent:
    """A file of rows at one moment.

    ``order`` is its position in every sum and its key; ``identity`` tells it from an earlier file with that key. Rows
    begin at byte ``start`` of ``data``.
    """

    order: int
    identity: object
    start: int
    data: bytes


class RowReader:
    """Adds up rows, reading after reading. ``corrupt`` counts invalid records and rows, each once.

    ``by_file`` names a counter that is also summed for each file.
    """

    def __init__(self, by_file: str = "") -> None:
        self.corrupt = 0
        self._by_file = by_file
        self._files: dict[int, _KnownFile] = {}
        self._schemas: dict[RowSchema, RowSchema] = {}
        self._totals: dict[int, dict[tuple[str, ...], RowTotal]] = {}
        self._changed: set[RowTotal] = set()
        self._sets = 0
        self._full = False
        self._held = 0

    def read(self, contents: Iterable[RowContent]) -> list[RowTotal]:
        """Return the totals of every label set in ``contents``, by schema; never raises because of their content.

        A missing file keeps its last values: its owner makes it again.
        """
        self._held = sum(len(file.data) for file in self._files.values())
        for content in contents:
            self._add_file(content)
        for total in self._changed:
            self._add_up(total)
        self._changed.clear()
        return [total for totals in self._totals.values() for total in totals.values()]

    def sums_by_file(self) -> dict[int, float]:
        """Return the sum of the counter ``by_file`` in each file, by the file's ``order``."""
        return {order: sum(file.counts) for order, file in self._files.items()}

    def _drop_file(self, order: int) -> None:
        for row in self._files.pop(order).rows:
            row.total.parts.pop(order, None)
            self._changed.add(row.total)

    def _add_up(self, total: RowTotal) -> None:
        if not total.parts:
            if self._totals[id(total.schema)].pop(total.values, None) is not None:
                self._sets -= 1
            return
        (_, first), *others = total.cells_by_file()
        for _, numbers in others:
            first = tuple(map(add, first, numbers))
        total.numbers = total.schema.shown(first)

    def _add_file(self, content: RowContent) -> None:
        order, data = content.order, content.data
        known = self._files.get(order)
        others = self._held - (0 if known is None else len(known.data))
        if others + len(data) > MOST_BYTES or (known is None and len(self._files) >= MOST_FILES):
            self._count_left_out(known)
            return
        self._held = others + len(data)
        if known is not None and known.identity != content.identity:
            self._drop_file(order)
            known = None
        if known is None:
            known = self._files[order] = _KnownFile(content.identity, content.start)
        if data == known.data:
            return
        found = scan_rows(data, known.end, len(data), known.schemas)
        # Records found before are not parsed again, so each damage counts once.
        self.corrupt += found.damaged
        known.end, known.schemas = found.end, found.schemas
        before, known.data = known.data, data
        for index in _changed_rows(known.on_page, before, data):
            row = known.rows[index]
            if before[row.begin : row.end] != data[row.begin : row.end]:
                self._read_row(known, order, index)
        # Rows of a file share their schema's object, which is compared once.
        shared: dict[int, RowSchema | None] = {}
        for head in found.rows:
            if id(head.schema) not in shared:
                shared[id(head.schema)] = self._schema_of(head.schema)
            self._add_row(known, order, head, shared[id(head.schema)])

    def _add_row(self, known: _KnownFile, order: int, head: RowHead, schema: RowSchema | None) -> None:
        total = None if schema is None else self._total_of(schema, head)
        if schema is None or total is None:
            self._count_left_out(known)
            return
        index, begin = len(known.rows), head.numbers
        end = begin + 8 * schema.cells
        known.rows.append(_Row(begin, end, total, _counted(schema, self._by_file)))
        known.counts.append(0.0)
        for page in range(begin // _PAGE, (end - 1) // _PAGE + 1):
            known.on_page.setdefault(page, []).append(index)
        self._read_row(known, order, index)

    def _count_left_out(self, known: _KnownFile | None) -> None:
        """Count once that part of a file is beyond the limits; files that were never read count once together."""
        if known is None:
            self.corrupt += not self._full
            self._full = True
        elif not known.left_out:
            known.left_out = True
            self.corrupt += 1

    def _read_row(self, known: _KnownFile, order: int, index: int) -> None:
        begin, end, total, counted = known.rows[index]
        if end > len(known.data):
            # the file was cut: the row keeps its last numbers
            return
        cells = known.data[begin:end]
        # The sign and the upper bits of the exponent of each: no number that counts something has one of these.
        upper = cells[_UPPER_BYTE::8]
        if not upper.isascii() or _HUGE in upper:
            cells = self._checked(known, begin, cells)
        total.parts[order] = cells
        if counted is not None:
            known.counts[index] = sum(counted(cells))
        self._changed.add(total)

    def _checked(self, known: _KnownFile, begin: int, cells: bytes) -> bytes:
        """Return a row's cells with 0 in place of what is below 0 or not finite."""
        numbers = array("d", cells)
        if min(numbers) >= 0 and math.isfinite(sum(numbers)):
            return cells
        if begin not in known.bad_rows:
            known.bad_rows.add(begin)
            self.corrupt += 1
        return array("d", [number if 0.0 <= number < math.inf else 0.0 for number in numbers]).tobytes()

    def _schema_of(self, schema: RowSchema) -> RowSchema | None:
        """Return the one object for all equal schemas: each file has its own. ``None`` when there are too many."""
        if schema not in self._schemas and len(self._schemas) >= MOST_SCHEMAS:
            return None
        return self._schemas.setdefault(schema, schema)

    def _total_of(self, schema: RowSchema, row: RowHead) -> RowTotal | None:
        """Return the total that a row is added to; ``None`` when there are too many label sets."""
        totals = self._totals.setdefault(id(schema), {})
        total = totals.get(row.values)
        if total is None:
            if self._sets >= MOST_SETS:
                return None
            self._sets += 1
            total = totals[row.values] = RowTotal(schema, row.values, row.birth)
        total.birth = min(total.birth, row.birth)
        return total


def _changed_rows(on_page: dict[int, list[int]], before: bytes, after: bytes) -> Iterable[int]:
    """Return the rows on pages in which two contents differ, also on those that only one of them has."""
    changed = [
        start // _PAGE
        for start in range(0, max(len(before), len(after)), _PAGE)
        if before[start : start + _PAGE] != after[start : start + _PAGE]
    ]
    # a row may lie on two pages
    return {index for page in changed for index in on_page.get(page, ())}


@lru_cache(maxsize=MOST_SCHEMAS)
def _unpacker(cells: int) -> Unpack:
    return Struct(f"={cells}d").unpack_from


@lru_cache(maxsize=MOST_SCHEMAS)
def _counted(schema: RowSchema, family: str) -> Unpack | None:
    """Return what takes the cells out of a row whose sum is what is shown of a counter; ``None`` if it is not there."""
    first = schema.firsts.get(family)
    if first is None:
        return None
    cells = {first, *range(schema.cells)[schema.included.get(first, slice(0, 0))]}
    return Struct("=" + "".join(["d" if cell in cells else "8x" for cell in range(schema.cells)])).unpack_from
