"""Adds up the rows of all slots; what did not change since the last reading is not parsed again.

Sums are made in the order of the files, so the order of float additions is fixed, and no total decreases by a rounding
error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import add
from struct import Struct
from typing import Any

from promgun.store.row_format import RowSchema
from promgun.store.row_scan import RowHead, scan_rows

Numbers = tuple[float, ...]
Unpack = Callable[[bytes, int], Numbers]
_PAGE = 4096
#: The limits of all files together: bytes, files, schemas and label sets. The rest is left out, and counted once.
MOST_BYTES = 64 << 20
MOST_FILES = 4096
MOST_SCHEMAS = 256
MOST_SETS = 50_000


@dataclass(slots=True, eq=False, repr=False)
class RowTotal:
    """A label set over all files: its total numbers as they are shown, by cell of its schema, and its earliest birth.

    A birth is in nanoseconds of the monotonic clock.
    """

    schema: RowSchema
    values: tuple[str, ...]
    birth: int
    numbers: Numbers = ()
    #: the numbers in each file, by the file's ``order``
    parts: dict[int, Numbers] = field(default_factory=dict)
    #: what was last made of ``numbers`` for a page, and of which numbers: most label sets do not change between pages
    shown: Any = None
    shown_of: object = None


@dataclass(slots=True, eq=False, repr=False)
class _KnownFile:
    """The known state of a file: its identity, its last content, how far it was parsed, and its rows with offsets."""

    identity: object
    end: int
    data: bytes = b""
    schemas: dict[int, RowSchema] = field(default_factory=dict)
    rows: list[tuple[int, Unpack, RowTotal]] = field(default_factory=list)
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
    """Adds up rows, reading after reading. ``corrupt`` counts invalid records and rows, each once."""

    def __init__(self) -> None:
        self.corrupt = 0
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

    def _drop_file(self, order: int) -> None:
        for _, _, total in self._files.pop(order).rows:
            total.parts.pop(order, None)
            self._changed.add(total)

    def _add_up(self, total: RowTotal) -> None:
        if not total.parts:
            if self._totals[id(total.schema)].pop(total.values, None) is not None:
                self._sets -= 1
            return
        first, *others = (total.parts[order] for order in sorted(total.parts))
        for numbers in others:
            first = tuple(map(add, first, numbers))
        total.numbers = first

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
        changed = _changed_pages(known.data, data)
        known.data = data
        for offset, unpack, total in known.rows:
            if changed.isdisjoint(range(offset // _PAGE, (offset + 8 * total.schema.cells - 1) // _PAGE + 1)):
                continue
            self._read_row(known, order, offset, unpack, total)
        for row in found.rows:
            fresh = self._total_of(row)
            if fresh is None:
                self._count_left_out(known)
                continue
            unpack = _unpacker(row.schema.cells)
            known.rows.append((row.numbers, unpack, fresh))
            self._read_row(known, order, row.numbers, unpack, fresh)

    def _count_left_out(self, known: _KnownFile | None) -> None:
        """Count once that part of a file is beyond the limits; files that were never read count once together."""
        if known is None:
            self.corrupt += not self._full
            self._full = True
        elif not known.left_out:
            known.left_out = True
            self.corrupt += 1

    def _read_row(self, known: _KnownFile, order: int, offset: int, unpack: Unpack, total: RowTotal) -> None:
        if offset + 8 * total.schema.cells > len(known.data):
            # the file was cut: the row keeps its last numbers
            return
        numbers = unpack(known.data, offset)
        if min(numbers) < 0 or not math.isfinite(sum(numbers)):
            if offset not in known.bad_rows:
                known.bad_rows.add(offset)
                self.corrupt += 1
            numbers = tuple(number if 0.0 <= number < math.inf else 0.0 for number in numbers)
        total.parts[order] = total.schema.shown(numbers)
        self._changed.add(total)

    def _total_of(self, row: RowHead) -> RowTotal | None:
        """Return the total that a row is added to; ``None`` when there are too many label sets."""
        if row.schema not in self._schemas and len(self._schemas) >= MOST_SCHEMAS:
            return None
        schema = self._schemas.setdefault(row.schema, row.schema)
        totals = self._totals.setdefault(id(schema), {})
        total = totals.get(row.values)
        if total is None:
            if self._sets >= MOST_SETS:
                return None
            self._sets += 1
            total = totals[row.values] = RowTotal(schema, row.values, row.birth)
        total.birth = min(total.birth, row.birth)
        return total


def _changed_pages(before: bytes, after: bytes) -> set[int]:
    """Return the pages in which two contents differ, including pages that only one of them has."""
    old, new = memoryview(before), memoryview(after)
    return {
        start // _PAGE
        for start in range(0, max(len(old), len(new)), _PAGE)
        if old[start : start + _PAGE] != new[start : start + _PAGE]
    }


_UNPACKERS: dict[int, Unpack] = {}


def _unpacker(cells: int) -> Unpack:
    return _UNPACKERS.setdefault(cells, Struct(f"={cells}d").unpack_from)
