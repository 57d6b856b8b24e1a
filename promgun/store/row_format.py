"""The on-disk format of rows: each is a label set with all its numbers, one behind the other in a slot's file.

A record begins at a multiple of 8 and has a header of 16 bytes in native byte order: magic and total length (one 64-bit
store, written last, so that a killed writer leaves no half record), the CRC-32 of the body without the numbers, and the
schema's id. There are two kinds:

* a schema: JSON that says which labels its rows have and which cells belong to which family; many bounds that follow
  one another by a constant ratio are ``{"log": [lowest, highest, steps]}`` (:func:`log_bounds`), those of a histogram
  that shows the cells of another are ``{"same": family}``;
* a row: its birth (nanoseconds of CLOCK_MONOTONIC, 64 bits), the lengths of its label values (16 bits each), the values
  in UTF-8, and from the next multiple of 8 on its numbers, float64.

A row that is being given other label values has another magic meanwhile: readers skip it. The checksum covers
everything in a record but magic, length and numbers. Readers skip invalid bytes up to the next record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from struct import Struct
from typing import Any
from zlib import crc32

HEADER = Struct("=IIIHH")
BIRTH = Struct("=q")
HEADER_SIZE = HEADER.size
SCHEMA_MAGIC = 0x31534750  # b"PGS1"
ROW_MAGIC = 0x31524750  # b"PGR1"
CHANGING_MAGIC = 0x31434750  # b"PGC1"
#: No record of ours is longer: 64 KiB of label text and a few hundred numbers.
LONGEST_RECORD = 1 << 18
#: The most bytes of a label value; longer ones are cut.
LONGEST_VALUE = 1 << 12
MOST_CELLS = 4096
_MANY_BOUNDS = 32
_LOG = "log"
_SAME = "same"
MOST_LABELS = 16


# No named tuple: making one takes ten times as long (CPython 3.11), and each start waits for it.
class CellGroup:
    """The cells of one family in a row.

    A counter has one cell. A histogram with ``bounds`` has a cell for each bucket, one for ``+Inf`` and one for the
    sum. ``labels`` are those of the row's labels that the family has. If ``first_includes`` names another family of the
    row, readers add the cell of that counter, or all buckets of that histogram, to the first cell of this one. So one
    cell can count in several families, and every number that is shown is a sum of cells: none sinks, whatever the order
    in which a writer stores cells and a reader copies them, and wherever a kill comes in between. A histogram that is
    ``same_as`` another one of the row, which stands before it and has the same bounds, has no cells: it shows those.
    """

    __slots__ = ("bounds", "family", "first_includes", "labels", "same_as")

    def __init__(
        self,
        family: str,
        labels: tuple[str, ...],
        bounds: tuple[float, ...] = (),
        first_includes: str = "",
        same_as: str = "",
    ) -> None:
        self.family = family
        self.labels = labels
        self.bounds = bounds
        self.first_includes = first_includes
        self.same_as = same_as

    @property
    def facts(self) -> tuple[object, ...]:
        """All that makes it differ from others."""
        return self.family, self.labels, self.bounds, self.first_includes, self.same_as

    @property
    def size(self) -> int:
        """How many cells the family takes."""
        return 0 if self.same_as else self.shown

    @property
    def shown(self) -> int:
        """How many numbers are shown of it."""
        return len(self.bounds) + 2 if self.bounds else 1

    @property
    def counts(self) -> int:
        """How many of them count something: all but a histogram's sum."""
        return len(self.bounds) + 1


class RowSchema:
    """The labels of one kind of row, and the families whose cells follow one another in it.

    ``cells`` is the number of cells of a row, ``firsts`` the first cell of each family, ``included`` the cells that are
    added to some of these first cells. They and the hash are computed once, because a schema is looked up for each new
    row.
    """

    __slots__ = ("_facts", "_hash", "cells", "firsts", "groups", "included", "labels")

    def __init__(self, labels: tuple[str, ...], groups: tuple[CellGroup, ...]) -> None:
        self.labels = labels
        self.groups = groups
        firsts: dict[str, int] = {}
        counts: dict[str, slice] = {}
        position = 0
        for group in self.groups:
            firsts[group.family] = firsts[group.same_as] if group.same_as else position
            first = firsts[group.family]
            counts[group.family] = slice(first, first + group.counts)
            position += group.size
        included = {
            firsts[group.family]: counts[group.first_includes]
            for group in self.groups
            if group.first_includes in counts
        }
        self.cells = position
        self.firsts = firsts
        self.included = included
        self._facts = labels, tuple([group.facts for group in groups])
        self._hash = hash(self._facts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RowSchema):
            return NotImplemented
        return self._facts == other._facts

    def __hash__(self) -> int:
        return self._hash

    def shown(self, cells: tuple[float, ...]) -> tuple[float, ...]:
        """Return the numbers that are shown of a row's cells: with what others count in some of them too."""
        if not self.included:
            return cells
        numbers = list(cells)
        for first, others in self.included.items():
            numbers[first] += sum(cells[others])
        return tuple(numbers)


def encode_schema(schema: RowSchema, identity: int) -> bytes:
    """Return the record of a schema."""
    groups = [
        [
            group.family,
            list(group.labels),
            {_SAME: group.same_as} if group.same_as else _spell(group.bounds),
            group.first_includes,
        ]
        for group in schema.groups
    ]
    body = json.dumps([list(schema.labels), groups], separators=(",", ":")).encode()
    described = body.ljust(-(-len(body) // 8) * 8, b"\0")
    header = HEADER.pack(SCHEMA_MAGIC, HEADER_SIZE + len(described), crc32(described, identity), identity, 0)
    return header + described


@lru_cache(maxsize=16)
def log_bounds(lowest: float, highest: float, steps: int) -> tuple[float, ...]:
    """Return ``steps`` + 1 bounds from ``lowest`` to ``highest``, each the same multiple of the one before, rounded to
    five digits.
    """
    return tuple(float(f"{lowest * (highest / lowest) ** (step / steps):.5g}") for step in range(steps + 1))


def _spell(bounds: tuple[float, ...]) -> list[float] | dict[str, list[float]]:
    """Return bounds for JSON, hundreds of them in a few bytes: the file of each slot has them."""
    if len(bounds) >= _MANY_BOUNDS and bounds[0] > 0:
        steps = len(bounds) - 1
        if log_bounds(bounds[0], bounds[-1], steps) == bounds:
            return {_LOG: [bounds[0], bounds[-1], steps]}
    return list(bounds)


def encode_row(cells: int, identity: int, values: tuple[str, ...], birth: int) -> bytes:
    """Return the record of a row; its last bytes are its ``cells`` numbers, all 0."""
    joined = "".join(values)
    if joined.isascii() and len(joined) <= LONGEST_VALUE:
        lengths, text = map(len, values), joined.encode("ascii")
    else:
        texts = [value.encode("utf-8", "replace")[:LONGEST_VALUE] for value in values]
        lengths, text = map(len, texts), b"".join(texts)
    body = row_start(len(values)).pack(birth, *lengths) + text
    described = body.ljust(-(-len(body) // 8) * 8, b"\0")
    length = HEADER_SIZE + len(described) + 8 * cells
    header = HEADER.pack(ROW_MAGIC, length, crc32(described, identity), identity, 0)
    return (header + described).ljust(length, b"\0")


@lru_cache(maxsize=MOST_LABELS + 1)
def row_start(labels: int) -> Struct:
    """Return the form of a row's birth and of the lengths of its label values."""
    return Struct(f"=q{labels}H")


def blank_values(labels: int, described: int) -> tuple[str, ...]:
    """Return label values, all blank, that make a row whose body without the numbers is ``described`` bytes long."""
    return (" " * (described - BIRTH.size - 2 * labels), *[""] * (labels - 1))[:labels]


def parse_schema(body: bytes) -> RowSchema | None:
    """Return the schema in a record's body; ``None`` when it is not valid."""
    try:
        raw = json.loads(body.rstrip(b"\0"))
        labels, groups = raw
        schema = RowSchema(tuple(_texts(labels)), _groups(groups))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    if not 0 < schema.cells <= MOST_CELLS or len(schema.labels) > MOST_LABELS:
        return None
    return schema if all(set(group.labels) <= set(schema.labels) for group in schema.groups) else None


def _groups(raw: Any) -> tuple[CellGroup, ...]:
    groups: list[CellGroup] = []
    for name, labels, bounds, included in raw:
        if isinstance(bounds, dict) and _SAME in bounds:
            (same,) = [group for group in groups if group.family == bounds[_SAME] and group.bounds]
            groups.append(CellGroup(_text(name), tuple(_texts(labels)), same.bounds, same_as=same.family))
        else:
            own = tuple(_texts(labels))
            groups.append(CellGroup(_text(name), own, _bounds(bounds), included and _text(included)))
    return tuple(groups)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not _is_word(value):
        raise ValueError(value)
    return value


def is_metric(name: str) -> bool:
    """Whether every reader accepts a metric of this name."""
    return _is_word(name.replace(":", "_"))


def is_label(name: str) -> bool:
    """Whether every reader accepts a label of this name: one bad name makes the whole page unreadable."""
    return _is_word(name) and not name.startswith("__")


def _is_word(text: str) -> bool:
    """Whether a text is ASCII letters, digits and underscores, with no digit before the others."""
    return text.isascii() and text.isidentifier()


def checked_text(value: Any) -> str:
    """Return a text without halves of surrogate pairs, which no page can contain; raises ``TypeError`` for others."""
    if not isinstance(value, str):
        raise TypeError(value)
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _texts(values: Any) -> Iterator[str]:
    if not isinstance(values, list):
        raise TypeError(values)
    return map(_text, values)


def _bounds(values: Any) -> tuple[float, ...]:
    if isinstance(values, dict):
        lowest, highest, steps = values[_LOG]
        if not (0 < lowest < highest and 0 < steps < MOST_CELLS and isinstance(steps, int)):
            raise ValueError(values)
        bounds = log_bounds(float(lowest), float(highest), steps)
    else:
        bounds = tuple(float(value) for value in values)
    if not all(map(math.isfinite, bounds)) or any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(values)
    return bounds
