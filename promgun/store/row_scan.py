"""Walks over the records of a slot's file, as any reader does, and the next owner: it steps over what is damaged."""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

from promgun.store.row_format import (
    CHANGING_MAGIC,
    HEADER,
    HEADER_SIZE,
    LONGEST_RECORD,
    ROW_MAGIC,
    SCHEMA_MAGIC,
    RowSchema,
    parse_schema,
    row_start,
)

_MAGICS = tuple(magic.to_bytes(4, "little") for magic in (SCHEMA_MAGIC, ROW_MAGIC, CHANGING_MAGIC))


class RowHead(NamedTuple):
    """The description of a row in a file: its numbers are ``schema.cells`` float64 from byte ``numbers`` on."""

    schema: RowSchema
    values: tuple[str, ...]
    birth: int
    numbers: int


class RowScan(NamedTuple):
    """The result of a walk over records: schemas by id, rows, the end of the records, the number of damaged ones.

    ``changing`` are the offsets of rows that are being given other label values.
    """

    schemas: dict[int, RowSchema]
    rows: list[RowHead]
    end: int
    damaged: int
    changing: tuple[int, ...] = ()


def scan_rows(data: bytes | memoryview, start: int, end: int, schemas: dict[int, RowSchema] | None = None) -> RowScan:
    """Walk the records in ``data`` from ``start`` to ``end``; ``schemas`` are those found before. Never raises.

    A header of zeros ends the walk before ``end``, and so does a record that is not whole.
    """
    known = dict(schemas or {})
    rows: list[RowHead] = []
    changing: list[int] = []
    view = memoryview(data)
    position, damaged = start, 0
    limit = min(end, len(view))
    while position + HEADER_SIZE <= limit:
        magic, length, check, identity, _ = HEADER.unpack_from(view, position)
        if magic == 0 and length == 0:
            break
        if _is_cut(view, position, limit, length):
            break
        if magic == CHANGING_MAGIC and identity in known and _fits(length, position, limit):
            changing.append(position)
            position += length
            continue
        found = _read_record(view, position, limit, (magic, length, check, identity), known)
        if found is None:
            damaged += 1
            position = _next_record(view, position + 8, limit)
            continue
        if isinstance(found, RowSchema):
            known[identity] = found
        else:
            rows.append(found)
        position += length
    return RowScan(known, rows, position, damaged, tuple(changing))


def _is_cut(view: memoryview, position: int, limit: int, length: int) -> bool:
    """Whether a record goes on behind ``limit``: a copy may have been made of fewer bytes than its writer had written.

    One whose length is damaged has other records behind it, or will have.
    """
    if length % 8 or length > LONGEST_RECORD or position + length <= limit:
        return False
    rest = bytes(view[position + 8 : limit])
    return not any(magic in rest for magic in _MAGICS)


def _fits(length: int, position: int, limit: int) -> bool:
    return not length % 8 and HEADER_SIZE < length <= LONGEST_RECORD and position + length <= limit


def _read_record(
    view: memoryview, position: int, limit: int, header: tuple[int, int, int, int], known: dict[int, RowSchema]
) -> RowSchema | RowHead | None:
    magic, length, check, identity = header
    end = position + length
    if not _fits(length, position, limit):
        return None
    schema = known.get(identity) if magic == ROW_MAGIC else None
    numbers = end if schema is None else end - 8 * schema.cells
    if numbers <= position + HEADER_SIZE:
        return None
    body = bytes(view[position + HEADER_SIZE : numbers])
    if crc32(body, identity) != check:
        return None
    if schema is not None:
        return _parse_row(schema, body, numbers)
    return parse_schema(body) if magic == SCHEMA_MAGIC else None


def _parse_row(schema: RowSchema, body: bytes, numbers: int) -> RowHead | None:
    start = row_start(len(schema.labels))
    if len(body) < start.size:
        return None
    birth, *sizes = start.unpack_from(body)
    position = start.size
    if position + sum(sizes) > len(body):
        return None
    values = []
    for size in sizes:
        end = position + size
        values.append(str(body[position:end], "utf-8", "replace"))
        position = end
    return RowHead(schema, tuple(values), max(0, birth), numbers)


def _next_record(view: memoryview, position: int, limit: int) -> int:
    """Return where the next record may begin, from ``position`` on, or where nothing but zeros follows."""
    data = bytes(view[position:limit])
    best = -(-len(data.rstrip(b"\0")) // 8) * 8
    for magic in _MAGICS:
        at = data.find(magic)
        while at >= 0 and (position + at) % 8:
            at = data.find(magic, at + 1)
        if at >= 0:
            best = min(best, at)
    return position + best
