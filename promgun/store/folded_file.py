"""What ended processes that never heard of promgun have left: one file a kind in ``slots``, ``folded.counter`` …

It is a file in prometheus_client's format (stock readers are given a link to it). Behind the end that its header names
stands a record of what was taken in, as JSON with magic, length and CRC-32: a file that it names is counted in, whether
it is still there or not. The whole is replaced by one rename, so nothing is ever counted twice or not at all.

A sum has its rounding error where a gauge has its time stamp: added up with it, a total does not sink by an error in
its last digit when a part of it moves in here.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple
from zlib import crc32

from promgun.store import format as fmt

_MAGIC = b"pgfolded"
_RECORD = struct.Struct("=8sII")
_CELLS = struct.Struct("dd")
#: Of one kind; the keys of about 40,000 series. New series beyond it are not kept.
FOLDED_SIZE = 1 << 23
#: Names of files that were taken in and are gone since: kept so that a process that saw them living learns what became
#: of them, however slow it is.
MOST_ORIGINS = 2048
#: No sum of a sane application is beyond it, and thousands of such can be added.
_HIGHEST = 1e300

#: A value and what stands behind it: the time stamp of a gauge of mode ``mostrecent``, the rounding error of a sum.
Pair = tuple[float, float]


class Origin(NamedTuple):
    """Which file it was that was taken in; inodes and names are used again, so its time of change too (nanoseconds)."""

    name: str
    device: int
    inode: int
    changed: int


@dataclass(frozen=True, slots=True)
class Folded:
    """What was taken in so far. ``generation`` counts the takings; ``origins`` has the one of each file that was taken,
    and all files that were taken from generation ``since`` on are named there.
    """

    generation: int = 0
    since: int = 1
    origins: Mapping[Origin, int] = field(default_factory=dict)
    entries: Mapping[str, Pair] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Values:
    """The entries of one value file, and how many could not be right."""

    entries: Mapping[str, Pair]
    bad: int = 0


def is_kept(kind: str) -> bool:
    """Whether what a dead process has of a kind stays: its own gauges (``all``) and ``live…`` ones do not."""
    return not kind.startswith(("gauge_live", "gauge_all"))


def parse_values(kind: str, data: bytes, *, folded: bool = False) -> Values:
    """Return the entries in the content of a value file; a damaged one gives what is good in it. Never raises.

    Time stamps are kept for the mode that goes by them, and in a ``folded`` file, where they are rounding errors.
    """
    used = fmt.read_used(data)
    whole = not fmt.header_error(used, len(data))
    found = fmt.scan(data, used if whole else len(data))
    entries: dict[str, Pair] = {}
    bad = 0 if whole and not found.error else 1
    for key, at in found.entries:
        value, stamp = _CELLS.unpack_from(data, at)
        if _is_right(kind, key, value):
            entries[key] = value, stamp if (folded or kind.endswith("mostrecent")) and math.isfinite(stamp) else 0.0
        else:
            bad += 1
    return Values(entries, bad)


def _is_right(kind: str, key: str, value: float) -> bool:
    if kind.startswith("gauge"):
        return True
    if not abs(value) <= _HIGHEST:
        return False
    if value >= 0:
        return True
    series = fmt.parse_series_key(key) if kind != "counter" else None
    # what is observed may be negative, and so may its sum
    return series is not None and series.sample.endswith("_sum")


def merge(kind: str, parts: Iterable[Mapping[str, Pair]]) -> dict[str, Pair]:
    """Return the values of several files of a kind together, as prometheus_client's modes say (0.26 multiprocess.py).

    Sums are exact to the last digit and come in two: the sum and its rounding error.
    """
    gathered: dict[str, list[Pair]] = {}
    for entries in parts:
        for key, pair in entries.items():
            gathered.setdefault(key, []).append(pair)
    rule = _rule(kind)
    return {key: rule(pairs) for key, pairs in gathered.items()}


def _rule(kind: str) -> Callable[[list[Pair]], Pair]:
    mode = kind.removeprefix("gauge_").removeprefix("live") if kind.startswith("gauge_") else "sum"
    return _RULES.get(mode, _last)


def _sum(pairs: list[Pair]) -> Pair:
    parts = [part for pair in pairs for part in pair if part]
    try:
        total = math.fsum(parts)
        return total, math.fsum([*parts, -total])
    except (OverflowError, ValueError):
        # a gauge that holds an infinity or NaN, or as good as
        return sum(pair[0] for pair in pairs), 0.0


def _last(pairs: list[Pair]) -> Pair:
    return pairs[-1]


_RULES: Mapping[str, Callable[[list[Pair]], Pair]] = {
    "sum": _sum,
    "min": lambda pairs: min(pairs, key=itemgetter(0)),
    "max": lambda pairs: max(pairs, key=itemgetter(0)),
    "mostrecent": lambda pairs: max(pairs, key=itemgetter(1)),
}


def encode_values(entries: Mapping[str, Pair], edition: int = 0, *, room: int = FOLDED_SIZE) -> tuple[bytes, int]:
    """Return the content of a value file of at most ``room`` bytes, and how many entries did not fit."""
    chunks: list[bytes] = []
    used, left_out = fmt.HEADER_SIZE, 0
    for key, pair in entries.items():
        entry = fmt.encode_entry(key)[: -_CELLS.size] + _CELLS.pack(*pair)
        if used + len(entry) > room:
            left_out += 1
            continue
        chunks.append(entry)
        used += len(entry)
    return fmt.encode_header(used, edition & 0xFFFFFFFF) + b"".join(chunks), left_out


def encode_folded(folded: Folded) -> tuple[bytes, int]:
    """Return the content of a folded file, and how many series did not fit."""
    content, left_out = encode_values(folded.entries, folded.generation)
    origins = [[*origin, generation] for origin, generation in folded.origins.items()]
    body = json.dumps([folded.generation, folded.since, origins], separators=(",", ":")).encode()
    return content + _RECORD.pack(_MAGIC, len(body), crc32(body)) + body, left_out


def parse_folded(kind: str, data: bytes) -> Folded | None:
    """Return what a folded file says; ``None`` when it is damaged so that nobody can tell what was taken in."""
    used = fmt.read_used(data)
    if fmt.header_error(used, len(data)) or len(data) < used + _RECORD.size:
        return None
    magic, length, check = _RECORD.unpack_from(data, used)
    body = data[used + _RECORD.size : used + _RECORD.size + length]
    if magic != _MAGIC or len(body) != length or crc32(body) != check:
        return None
    try:
        generation, since, rows = json.loads(body)
        origins = {Origin(str(name), *map(int, numbers)): int(taken) for name, *numbers, taken in rows}
        return Folded(int(generation), int(since), origins, parse_values(kind, data, folded=True).entries)
    except (ValueError, TypeError, RecursionError):
        return None


def taken_in(
    kind: str, before: Folded, parts: Mapping[Origin, Mapping[str, Pair]], present: Iterable[Origin] = ()
) -> Folded:
    """Return ``before`` with files taken in; of those named already nothing is counted again.

    Names of files that are gone are dropped, oldest first, beyond ``MOST_ORIGINS``; those ``present`` never.
    """
    fresh = {origin: entries for origin, entries in parts.items() if origin not in before.origins}
    generation = before.generation + 1
    origins = dict(before.origins) | dict.fromkeys(fresh, generation)
    needed = set(present) | set(fresh)
    since = before.since
    for origin, taken in sorted(before.origins.items(), key=itemgetter(1)):
        if len(origins) <= MOST_ORIGINS:
            break
        if origin not in needed:
            del origins[origin]
            since = max(since, taken + 1)
    return Folded(generation, since, origins, merge(kind, [before.entries, *fresh.values()]))


def bytes_in_use(read: Callable[[int, int], bytes], limit: int) -> bytes:
    """Return the part of a value file that counts: ``read(size, offset)`` gives bytes of it, ``limit`` is the most.

    The header comes first: what it names is there. Where it cannot be right, everything is read.
    """
    used: Any = fmt.read_used(read(fmt.HEADER_SIZE, 0))
    return read(used if fmt.HEADER_SIZE <= used <= limit else limit, 0)
