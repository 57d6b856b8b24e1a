"""The folded file of a kind: the values of ended processes that run without promgun, merged into one file.

There is one file a kind in ``slots`` (``folded.counter`` …), in prometheus_client's format; stock readers get a link to
it. Behind the end that its header names stands a JSON record, with magic, length and CRC-32, of the files merged so far
("taken in"). A file named there is already counted, whether it still exists or not. The whole file is replaced by one
rename, so nothing is ever counted twice or lost.

Where a gauge has its time stamp, a sum has its rounding error. Readers add both, so a total never decreases in its last
digit when one of its parts is merged into this file.
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
#: The most bytes of one folded file: the keys of about 40,000 series. New series beyond it are dropped.
FOLDED_SIZE = 1 << 23
#: The most names of merged files that no longer exist. They are kept so that a process that last saw the files alive
#: learns what became of them, however slow it is.
MOST_ORIGINS = 2048
#: Above every sum of a sane application; thousands of such sums can be added without overflow.
_HIGHEST = 1e300

#: A value and the number after it: the time stamp of a ``mostrecent`` gauge, or the rounding error of a sum.
Pair = tuple[float, float]


class Origin(NamedTuple):
    """Identifies a file that was merged. Inodes and names are reused, so ``changed`` (st_ctime, ns) is included."""

    name: str
    device: int
    inode: int
    changed: int


@dataclass(frozen=True, slots=True, repr=False)
class Folded:
    """What was merged so far.

    ``generation`` is the number of merges; ``origins`` has the generation of each merged file and names every file that
    was merged from generation ``since`` on.
    """

    generation: int = 0
    since: int = 1
    origins: Mapping[Origin, int] = field(default_factory=dict)
    entries: Mapping[str, Pair] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class Values:
    """The entries of one value file, and the number of invalid ones."""

    entries: Mapping[str, Pair]
    bad: int = 0


def is_kept(kind: str) -> bool:
    """Whether a dead process's values of a kind are kept: gauges of mode ``all`` and of the live modes are not."""
    return not kind.startswith(("gauge_live", "gauge_all"))


def parse_values(kind: str, data: bytes, *, folded: bool = False) -> Values:
    """Return the entries in the content of a value file; of a damaged file the good ones. Never raises.

    Time stamps are kept for gauges of mode ``mostrecent``, and in a ``folded`` file, where they are rounding errors.
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
    # observed values may be negative, and so may their sum
    return series is not None and series.sample.endswith("_sum")


def merge(kind: str, parts: Iterable[Mapping[str, Pair]]) -> dict[str, Pair]:
    """Return the merged values of several files of a kind, by prometheus_client's modes (0.26 multiprocess.py).

    A sum is exact to the last digit and comes as two numbers: the sum and its rounding error.
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
        # a gauge with an infinity, NaN or a value close to overflow
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
    """Return the content of a value file of at most ``room`` bytes, and the number of entries that did not fit."""
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
    """Return the content of a folded file, and the number of series that did not fit."""
    content, left_out = encode_values(folded.entries, folded.generation)
    origins = [[*origin, generation] for origin, generation in folded.origins.items()]
    body = json.dumps([folded.generation, folded.since, origins], separators=(",", ":")).encode()
    return content + _RECORD.pack(_MAGIC, len(body), crc32(body)) + body, left_out


def parse_folded(kind: str, data: bytes) -> Folded | None:
    """Return the content of a folded file; ``None`` when damage hides which files were merged."""
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
    """Return ``before`` with more files merged in; files that it already names are not counted again.

    Beyond ``MOST_ORIGINS``, names of files that no longer exist are dropped, oldest first; ``present`` ones never are.
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
    """Return the used part of a value file; ``read(size, offset)`` gives its bytes, ``limit`` is the most to return.

    The header is read first and says how much is used. Where it is invalid, everything is read.
    """
    used: Any = fmt.read_used(read(fmt.HEADER_SIZE, 0))
    return read(used if fmt.HEADER_SIZE <= used <= limit else limit, 0)
