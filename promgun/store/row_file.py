"""The rows of a slot as their one writer sees them: a fixed part of one mapped file, filled from the front."""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable
from struct import Struct
from typing import Any
from zlib import crc32

from promgun.store.row_format import (
    BIRTH,
    CHANGING_MAGIC,
    HEADER_SIZE,
    LONGEST_VALUE,
    ROW_MAGIC,
    RowSchema,
    blank_values,
    encode_row,
    encode_schema,
)

_HEAD = Struct("=Q")
_LENGTH_AND_IDENTITY = Struct("=4xI4xH")
_MAGIC_AND_LENGTH = Struct("=II")
#: Bytes allocated in one step, which takes about 5 µs on tmpfs: little at first, as most slots have few rows.
_FIRST_STEP, _STEP = mmap.PAGESIZE, 4 * mmap.PAGESIZE
_FIRST_STEPS = 16 * mmap.PAGESIZE
_MOST_SCHEMAS = 1 << 15

#: The place of a row's numbers: the float cells of the whole memory, and the index of the first number.
RowPlace = tuple[Any, int]


class RowFile:
    """Appends rows to ``memory`` and hands out the places of their numbers, which never move.

    ``memory`` is the whole mapped file (or private memory); rows begin at byte ``start``. ``reserve(offset, size)``
    allocates these bytes of the file and raises ``OSError`` when it cannot: a sparse mapping kills its process with
    SIGBUS when the file system is full. ``clock`` gives the births that decide which label sets are folded; it must be
    one that all processes share and nobody sets. Not thread-safe: hold the store's lock.
    """

    def __init__(
        self,
        memory: memoryview,
        start: int,
        reserve: Callable[[int, int], None],
        *,
        reserved: int = 0,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.cells = memory.cast("d")
        self.memory = memory
        self.words = memory.cast("Q")
        self._start = start
        self._reserve = reserve
        #: the end of the allocated pages: nothing was ever written behind it
        self.reserved = max(start, reserved)
        self.clock = clock
        self._tables: dict[RowSchema, RowTable] = {}
        #: by the identity of a schema, which lives as long as its entry
        self._seen: dict[int, tuple[RowSchema, RowTable]] = {}
        self.damaged = 0
        self.end = start
        self._identities = 0
        if self.reserved > start:
            self._index_rows()

    def _index_rows(self) -> None:
        """Index the rows of earlier owners, and clear what a killed owner left behind the last whole one."""
        from promgun.store.row_scan import scan_rows  # noqa: PLC0415 - the files of most starts are new

        found = scan_rows(self.memory[: self.reserved], self._start, self.reserved)
        self.damaged = found.damaged
        self.end = found.end
        self._identities = len(found.schemas)
        for identity, schema in found.schemas.items():
            self._identities = max(self._identities, identity)
            self._tables.setdefault(schema, RowTable(self, identity, schema.cells))
        for row in found.rows:
            self._tables[row.schema].rows.setdefault(row.values, row.numbers // 8)
        for position in found.changing:
            self._finish_change(position, found.schemas)
        rest = self.reserved - self.end
        if rest > 0:
            self.memory[self.end : self.reserved] = bytes(rest)

    def _finish_change(self, position: int, schemas: dict[int, RowSchema]) -> None:
        """Make a whole row, with blank label values, of one whose owner was killed while it changed them."""
        length, identity = _LENGTH_AND_IDENTITY.unpack_from(self.memory, position)
        schema = schemas[identity]
        numbers = length - 8 * schema.cells
        values = blank_values(len(schema.labels), numbers - HEADER_SIZE)
        record = encode_row(schema.cells, identity, values, 0)
        if len(record) == length:
            self.rewrite(position, record)
            self._tables[schema].rows.setdefault(values, (position + numbers) // 8)

    def values_like(self, schema: RowSchema) -> list[tuple[str, ...]]:
        """Return the label values of all rows with the labels and the first family of ``schema``: other buckets, or
        cells of more families, make another schema. Some may come twice.
        """
        alike = [
            table.rows
            for other, table in self._tables.items()
            if other.labels == schema.labels and other.groups[0].family == schema.groups[0].family
        ]
        return [values for rows in alike for values in rows]

    def table(self, schema: RowSchema) -> RowTable:
        """Return the rows of a schema, writing the schema's record if it is new; raises ``OSError`` when there is no
        room.
        """
        # Comparing schemas takes longer than all else that finds a row.
        known = self._seen.get(id(schema))
        if known is not None:
            return known[1]
        table = self._tables.get(schema)
        if table is None:
            identity = self._identities + 1
            if identity >= _MOST_SCHEMAS:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            self.append(encode_schema(schema, identity))
            self._identities = identity
            table = self._tables[schema] = RowTable(self, identity, schema.cells)
        self._seen[id(schema)] = schema, table
        return table

    def append(self, record: bytes) -> int:
        """Write a record behind the last; return the offset of its end. Raises ``OSError`` when there is no room."""
        at, end = self.end, self.end + len(record)
        if end > self.reserved:
            self.make_room(end)
        # The word that makes it count is stored last: a kill before that leaves only bytes that are overwritten.
        self.memory[at + 8 : end] = record[8:]
        self.end = end
        self.words[at // 8] = _HEAD.unpack_from(record)[0]
        return end

    def make_room(self, end: int) -> None:
        """Allocate the file up to an offset behind what is allocated; raises ``OSError`` when there is no room."""
        if end > len(self.memory):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        step = _FIRST_STEP if end <= _FIRST_STEPS else _STEP
        upto = min(len(self.memory), -(-end // step) * step)
        self._reserve(self.reserved, upto - self.reserved)
        self.reserved = upto

    def rewrite(self, at: int, record: bytes) -> None:
        """Replace the record at an offset by another of the same length."""
        # Readers skip it while its magic is another, and so does the next owner after a kill.
        self.words[at // 8] = _HEAD.unpack(_MAGIC_AND_LENGTH.pack(CHANGING_MAGIC, len(record)))[0]
        self.memory[at + 8 : at + len(record)] = record[8:]
        self.words[at // 8] = _HEAD.unpack_from(record)[0]


#: What packs the birth, the lengths of the label values and their text; what packs all behind the record's first word;
#: that word; the record's length.
RowForm = tuple[Callable[..., bytes], Callable[..., bytes], int, int]


def row_form(labels: int, text: int, cells: int) -> RowForm:
    """Return the form of the records of rows with so many labels, bytes of their values' text and numbers."""
    described = -(-(BIRTH.size + 2 * labels + text) // 8) * 8
    size = HEADER_SIZE + described + 8 * cells
    describe = Struct(f"=q{labels}H{described - BIRTH.size - 2 * labels}s").pack
    rest = Struct(f"=IHH{described}s{8 * cells}s").pack
    return describe, rest, _HEAD.unpack(_MAGIC_AND_LENGTH.pack(ROW_MAGIC, size))[0], size


class RowTable:
    """The rows of one schema in a :class:`RowFile`: label values to the index of the first number."""

    def __init__(self, file: RowFile, identity: int, cells: int) -> None:
        self._file = file
        self._identity = identity
        self._cells = cells
        self.rows: dict[tuple[str, ...], int] = {}
        self._forms: dict[int, RowForm] = {}

    def place(self, values: tuple[str, ...]) -> RowPlace:
        """Return the place of a row's numbers, making the row if need be; raises ``OSError`` when there is no room."""
        file = self._file
        index = self.rows.get(values)
        if index is None:
            text = "".join(values)
            length = len(text)
            if length > LONGEST_VALUE or not text.isascii():
                end = file.append(encode_row(self._cells, self._identity, values, file.clock()))
            else:
                # encode_row and append written out, for the first request with a label set waits for its row.
                form = self._forms.get(length)
                if form is None:
                    form = self._forms[length] = row_form(len(values), length, self._cells)
                describe, rest, first_word, size = form
                at, identity = file.end, self._identity
                end = at + size
                if end > file.reserved:
                    file.make_room(end)
                described = describe(file.clock(), *map(len, values), text.encode())
                # As in append: the first word last.
                file.memory[at + 8 : end] = rest(crc32(described, identity), identity, 0, described, b"")
                file.end = end
                file.words[at // 8] = first_word
            index = self.rows[values] = end // 8 - self._cells
        return file.cells, index

    def reuse(self, old: tuple[str, ...], values: tuple[str, ...]) -> RowPlace:
        """Give the row of ``old`` to ``values``, with all its numbers 0; return its place.

        Raises ``KeyError`` without such a row, ``ValueError`` when the two need rows of different lengths.
        """
        file = self._file
        index = self.rows[old]
        record = encode_row(self._cells, self._identity, values, file.clock())
        if len(record) != len(encode_row(self._cells, self._identity, old, 0)):
            raise ValueError(values)
        del self.rows[old]
        file.rewrite(8 * (index + self._cells) - len(record), record)
        self.rows[values] = index
        return file.cells, index
