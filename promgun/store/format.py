"""The on-disk format of a value file: prometheus_client's multiprocess format, read and written by us.

Layout (prometheus_client 0.26 ``mmap_dict``): a native int32 ``used`` and 4 bytes of padding, then entries up to
``used``. An entry is an int32 key length, the key in UTF-8, spaces up to a multiple of 8, a float64 value and a float64
time stamp. There is no checksum.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

HEADER_SIZE = 8
_INT = struct.Struct("i")
_HEADER = struct.Struct("iI")
_TRAILER = bytes(16)
#: How every entry's key begins: ``["family", …``.
_KEY_START = b'["'
#: The most bytes of a key of ours or of a sane application; a greater length is damage.
MAX_KEY = 1 << 20
#: With damage in more places than this, it is another kind of file and not worth the time.
_MOST_DAMAGES = 1000


class SeriesKey(NamedTuple):
    """The parts of a series' key."""

    family: str
    sample: str
    labels: Mapping[str, str]
    documentation: str


Parse = Callable[[str], SeriesKey | None]


class Scan(NamedTuple):
    """The result of a walk over a file: keys with the byte offset of their value, the offset after the last good entry,
    and the first damage (empty when there is none).
    """

    entries: list[tuple[str, int]]
    end: int
    error: str


def series_key(family: str, sample: str, labels: Mapping[str, str], documentation: str) -> str:
    """Return the key of a series, as prometheus_client's ``mmap_key`` writes it."""
    return json.dumps([family, sample, dict(labels), documentation], sort_keys=True)


def encode_entry(key: str) -> bytes:
    """Return a whole entry for ``key`` with value and time stamp 0."""
    raw = key.encode()
    padding = b" " * (8 - (len(raw) + 4) % 8)
    return _INT.pack(len(raw)) + raw + padding + _TRAILER


def encode_header(used: int, edition: int = 0) -> bytes:
    """Return the 8 bytes that open a file of which ``used`` bytes count.

    ``edition`` (32 bits) stands where prometheus_client has padding. It tells a file from a later one that was made
    under the same name, perhaps with the same inode number.
    """
    return _HEADER.pack(used, edition)


def read_used(data: bytes | memoryview) -> int:
    """Return the ``used`` field, or -1 where there is none."""
    return int(_INT.unpack_from(data, 0)[0]) if len(data) >= HEADER_SIZE else -1


def read_edition(data: bytes | memoryview) -> int:
    """Return the edition of a file; 0 for prometheus_client's own files and for data without a header."""
    return int(_HEADER.unpack_from(data, 0)[1]) if len(data) >= HEADER_SIZE else 0


def header_error(used: int, size: int) -> str:
    """Return what is wrong with a ``used`` field in a file of ``size`` bytes; empty when it is valid."""
    if used < HEADER_SIZE:
        return "no valid header"
    if used > size:
        return "header points beyond the end"
    return "header is out of step" if used % 8 else ""


def scan(data: bytes, used: int, start: int = HEADER_SIZE, parse: Parse | None = None) -> Scan:
    """Walk the entries in ``data`` from ``start`` to ``used``; never raises.

    Invalid bytes are skipped up to the next whole entry: all entries begin at multiples of 8. ``parse`` replaces
    :func:`parse_series_key`, for callers that cache its results.
    """
    parse = parse or parse_series_key
    entries: list[tuple[str, int]] = []
    position = end = start
    limit = min(used, len(data))
    error, damages = "", 0
    while position < limit and damages < _MOST_DAMAGES:
        found = _entry_at(data, position, limit, parse)
        if isinstance(found, str):
            error, damages = error or found, damages + 1
            position = _next_start(data, position + 8, limit)
        else:
            entries.append(found)
            position = end = found[1] + 16
    return Scan(entries, end, error)


def _entry_at(data: bytes, position: int, limit: int, parse: Parse) -> tuple[str, int] | str:
    """Return key and value offset of the entry at ``position``, or what is wrong there."""
    if position + 4 > limit:
        return "entry cut short"
    length = _INT.unpack_from(data, position)[0]
    value_at = position + 4 + length + (8 - (length + 4) % 8)
    if not 0 < length <= MAX_KEY or value_at + 16 > limit:
        return "entry length cannot be right"
    try:
        key = data[position + 4 : position + 4 + length].decode()
    except UnicodeDecodeError:
        return "key is not UTF-8"
    return (key, value_at) if parse(key) is not None else "key is not a series"


def _next_start(data: bytes, position: int, limit: int) -> int:
    """Return the next offset from ``position`` where an entry may begin, ``limit`` when there is none."""
    while (at := data.find(_KEY_START, position + 4, limit)) >= 0:
        if (at - 4) % 8 == 0:
            return at - 4
        position = at - 3
    return limit


def salvage(data: bytes) -> bytes:
    """Return all whole entries in ``data`` with their values, concatenated, whatever the header says."""
    return b"".join(
        encode_entry(key)[: -len(_TRAILER)] + data[at : at + len(_TRAILER)] for key, at in scan(data, len(data)).entries
    )


def parse_series_key(key: str) -> SeriesKey | None:
    """Return the parts of a key, ``[family, sample, {label: value}, help]``; ``None`` when it is not a series' key."""
    # The spaces follow the key of an entry; a key that includes them has a wrong length.
    if key[-1:] != "]":
        return None
    try:
        parsed = json.loads(key)
    except (ValueError, RecursionError):
        return None
    whole = (
        isinstance(parsed, list)
        and len(parsed) == 4  # noqa: PLR2004 - the four fields of the format
        and all(isinstance(parsed[i], str) for i in (0, 1, 3))
        and isinstance(parsed[2], dict)
        and all(isinstance(value, str) for value in parsed[2].values())
    )
    return SeriesKey(*parsed) if whole else None


def go_string(bound: float) -> str:
    """Spell a bound as prometheus_client does: ``0.005``, ``1.0``, ``1.048576e+06``."""
    if math.isinf(bound):
        return "+Inf" if bound > 0 else "-Inf"
    if math.isnan(bound):
        return "NaN"
    text = repr(float(bound))
    whole = text.find(".")
    # prometheus_client 0.26 utils.floatToGoString: exponents only above 1e6, as Go formats
    if bound > 0 and whole > 6:  # noqa: PLR2004 - same
        mantissa = f"{text[0]}.{text[1:whole]}{text[whole + 1 :]}".rstrip("0.")
        return f"{mantissa}e+{whole - 1:02d}"
    return text
