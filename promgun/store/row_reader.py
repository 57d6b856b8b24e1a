"""Adds up the rows of all slots; what did not change since the last reading is not parsed again.

Sums are made in the order of the files, so the order of float additions is fixed, and no total decreases by a rounding
error.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from promgun.store.row_blocks import Row, RowBlock
from promgun.store.row_format import RowSchema
from promgun.store.row_scan import RowHead, scan_rows
from promgun.store.row_total import RowTotal

#: Where no record begins. Most files have the rows that they had at the last reading.
_NO_RECORD = bytes(8)
#: The limits of all files together: bytes, files, schemas and label sets. The rest is left out, and counted once.
MOST_BYTES = 64 << 20
MOST_FILES = 4096
MOST_SCHEMAS = 256
MOST_SETS = 50_000


@dataclass(slots=True, eq=False, repr=False)
class _KnownFile:
    """The known state of a file: its identity, its last content, how far it was parsed, and its rows."""

    identity: object
    end: int
    data: bytes = b""
    schemas: dict[int, RowSchema] = field(default_factory=dict)
    blocks: list[RowBlock] = field(default_factory=list)
    bad_rows: set[int] = field(default_factory=set)
    left_out: bool = False


class RowContent(NamedTuple):
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
        self._dropped: set[RowTotal] = set()
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
        for total in self._dropped:
            if total.is_empty and self._totals[id(total.schema)].pop(total.values, None) is not None:
                self._sets -= 1
        self._dropped.clear()
        return [total for totals in self._totals.values() for total in totals.values()]

    def sums_by_file(self) -> dict[int, float]:
        """Return the sum of the counter ``by_file`` in each file, by the file's ``order``."""
        return {order: sum([block.count for block in file.blocks]) for order, file in self._files.items()}

    def _drop_file(self, order: int) -> None:
        for block in self._files.pop(order).blocks:
            for total in block.totals():
                total.drop_part(order)
                self._dropped.add(total)

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
        before, known.data = known.data, data
        if not data.startswith(_NO_RECORD, known.end):
            self._find_rows(known)
        blocks = known.blocks
        for block in blocks:
            if len(blocks) == 1 or before[block.begin : block.end] != data[block.begin : block.end]:
                block.read(data, order, partial(self._checked, known))

    def _find_rows(self, known: _KnownFile) -> None:
        """Read the records that stand behind those that are known."""
        found = scan_rows(known.data, known.end, len(known.data), known.schemas)
        # Records found before are not parsed again, so each damage counts once.
        self.corrupt += found.damaged
        known.end, known.schemas = found.end, found.schemas
        # Rows of a file share their schema's object, which is compared once.
        shared: dict[int, RowSchema | None] = {}
        for head in found.rows:
            if id(head.schema) not in shared:
                shared[id(head.schema)] = self._schema_of(head.schema)
            schema = shared[id(head.schema)]
            total = None if schema is None else self._total_of(schema, head)
            if schema is None or total is None:
                self._count_left_out(known)
                continue
            if not known.blocks or known.blocks[-1].is_full:
                known.blocks.append(RowBlock(self._by_file))
            known.blocks[-1].add(Row(head.numbers, head.numbers + 8 * schema.cells, total))

    def _count_left_out(self, known: _KnownFile | None) -> None:
        """Count once that part of a file is beyond the limits; files that were never read count once together."""
        if known is None:
            self.corrupt += not self._full
            self._full = True
        elif not known.left_out:
            known.left_out = True
            self.corrupt += 1

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
