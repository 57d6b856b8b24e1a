"""The reader: all slots, merged, at any moment, whatever state the files are in.

Files are read with ``pread`` and never mapped. What does not change between two readings (which series stand where in
a file) is kept, so a reading costs
what changed: one read a file and one addition a value. Sums run in slot order, so no total ever sinks by a rounding
error.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from promgun.store import format as fmt
from promgun.store.files import MAX_SIZE
from promgun.store.slots import VALUE_FILE

#: Families of another kind sort behind: counters are summed before gauges of the same name are looked at.
_KINDS = ("counter", "histogram", "summary", "gauge")
_SUMMED = frozenset({"sum", "livesum"})
_FIRST = {"min": min, "livemin": min, "max": max, "livemax": max}


@dataclass(slots=True)
class Series:
    """One series of the page: its family, sample name and labels, and where its total is gathered."""

    family: str
    kind: str
    mode: str
    sample: str
    labels: tuple[tuple[str, str], ...]
    documentation: str
    value: float = 0.0
    seen: int = 0
    stamp: float = 0.0


@dataclass(slots=True)
class _Known:
    """What is known of a file: which file it is, how far it was parsed, its series and how to pick their values."""

    identity: tuple[int, int]
    parsed: int
    series: list[Series] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    pick: Callable[[Any], tuple[float, ...]] | None = None
    damage: str = ""
    last: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """The merged store: every series that stands in a file, plus what the store takes up and what could not be read.

    ``corrupt`` counts files found damaged since the reader was made, each once for each damage.
    """

    series: list[Series]
    files: int
    size: int
    corrupt: int
    complaints: tuple[str, ...]


class StoreReader:
    """Reads one store again and again; ``alive`` tells whether the owner of a slot lives, for gauges of live modes."""

    def __init__(self, path: Path, alive: Callable[[int], bool] = lambda _: True) -> None:
        self.path = path
        self._alive = alive
        self._known: dict[str, _Known] = {}
        self._series: dict[tuple[str, str, str], Series] = {}
        self._round = 0
        self._corrupt = 0
        self._complaints: list[str] = []

    def read(self) -> Reading:
        """Read and merge everything; never raises for what stands in the store."""
        self._round += 1
        self._complaints = []
        files, size = 0, 0
        try:
            directory_fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        except OSError:
            return Reading([], 0, 0, self._corrupt, ())
        try:
            names = os.listdir(directory_fd)
            for name in sorted(names, key=_reading_order):
                match = VALUE_FILE.fullmatch(name)
                if match is None:
                    continue
                number = int(match[2])
                if match[1].startswith("gauge_live") and not self._alive(number):
                    continue
                taken = self._read_file(directory_fd, name, match[1], number)
                if taken >= 0:
                    files += 1
                    size += taken
            for gone in self._known.keys() - set(names):
                # Only live gauges are ever removed; a counter file that vanished with its store is nothing to keep.
                del self._known[gone]
        finally:
            os.close(directory_fd)
        current = self._round
        series = [item for item in self._series.values() if item.seen == current]
        return Reading(series, files, size, self._corrupt, tuple(self._complaints))

    def _read_file(self, directory_fd: int, name: str, kind: str, slot: int) -> int:
        """Add one file to the totals; return its size, or -1 when it is no file that can be read."""
        known = self._known.get(name)
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory_fd)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._complain(name, error.strerror or "unreadable")
            return -1
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SIZE:
                self._complain(name, "not a regular file" if not stat.S_ISREG(status.st_mode) else "oversize")
                return -1
            data = os.pread(fd, fmt.HEADER_SIZE, 0)
            used = min(fmt.read_used(data), status.st_size)
            data = os.pread(fd, used, 0) if used > fmt.HEADER_SIZE else data
        except OSError as error:
            self._complain(name, error.strerror or "unreadable")
            return -1
        finally:
            os.close(fd)
        identity = (status.st_dev, status.st_ino)
        if known is None or known.identity != identity:
            known = self._known[name] = _Known(identity, fmt.HEADER_SIZE)
        self._parse(known, data, used, name, kind, slot)
        self._accumulate(known, data)
        return status.st_size

    def _parse(self, known: _Known, data: bytes, used: int, name: str, kind: str, slot: int) -> None:
        """Take in the entries that are new since the last reading."""
        if used == known.parsed:
            return
        found = fmt.scan(data, used, known.parsed) if used > known.parsed else None
        damage = fmt.header_error(used, len(data)) or (found.error if found is not None else "")
        if found is None:
            # The file was cut short, or healed by a new owner: what stood behind is gone.
            damage = damage or "shorter than before"
            keep = sum(offset * 8 + 16 <= used for offset in known.offsets)
            del known.series[keep:], known.offsets[keep:]
            known.parsed = max(used, fmt.HEADER_SIZE)
        else:
            for key, position in found.entries:
                known.series.append(self._intern(key, kind, slot))
                known.offsets.append(position // 8)
            known.parsed = found.end
        known.pick = _picker(known.offsets)
        if damage and damage != known.damage:
            self._complain(name, damage)
        known.damage = damage

    def _intern(self, key: str, kind: str, slot: int) -> Series:
        per_slot = kind in ("gauge_all", "gauge_liveall")
        identity = (kind, key, str(slot) if per_slot else "")
        series = self._series.get(identity)
        if series is None:
            family, sample, labels, documentation = json.loads(key)
            if per_slot:
                labels["pid"] = f"slot{slot}"
            name, _, mode = kind.partition("_")
            series = self._series[identity] = Series(
                family, name, mode, sample, tuple(sorted(labels.items())), documentation
            )
        return series

    def _accumulate(self, known: _Known, data: bytes) -> None:
        if known.pick is None:
            return
        whole = len(data) - len(data) % 8
        cells = memoryview(data)[:whole].cast("d")
        try:
            values = known.pick(cells)
        except IndexError:
            # Cut short between our reading of the header and of the rest.
            values = known.last
        known.last = values
        current = self._round
        for series, value, offset in zip(known.series, values, known.offsets, strict=False):
            if series.seen != current:
                series.seen = current
                series.value = value
                series.stamp = (
                    cells[offset + 1] if series.mode.endswith("mostrecent") and offset + 1 < len(cells) else 0.0
                )
            elif series.kind != "gauge" or series.mode in _SUMMED:
                series.value += value
            else:
                _merge_gauge(series, value, cells[offset + 1] if offset + 1 < len(cells) else 0.0)

    def _complain(self, name: str, reason: str) -> None:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = _Known((0, 0), fmt.HEADER_SIZE)
        if known.damage != reason:
            known.damage = reason
            self._corrupt += 1
            self._complaints.append(f"{name}: {reason}")


def _merge_gauge(series: Series, value: float, stamp: float) -> None:
    pick = _FIRST.get(series.mode)
    if pick is not None:
        series.value = pick(series.value, value)
    elif series.mode.endswith("mostrecent"):
        if stamp > series.stamp:
            series.value, series.stamp = value, stamp
    else:
        series.value = value


def _picker(offsets: list[int]) -> Callable[[Any], tuple[float, ...]] | None:
    if not offsets:
        return None
    if len(offsets) == 1:
        only = offsets[0]
        return lambda cells: (cells[only],)
    return itemgetter(*offsets)


def _reading_order(name: str) -> tuple[int, str, int]:
    """Kinds in a fixed order, then slots by number: the order in which floats are added must never change."""
    match = VALUE_FILE.fullmatch(name)
    if match is None:
        return (len(_KINDS), name, 0)
    kind = match[1].partition("_")[0]
    return (_KINDS.index(kind), match[1], int(match[2]))


def families_of(series: Iterable[Series]) -> dict[str, list[Series]]:
    """Group series by family; of two kinds under one name the first read is kept: a page may type a family once."""
    families: dict[str, list[Series]] = {}
    for item in series:
        group = families.setdefault(item.family, [])
        if not group or (group[0].kind, group[0].mode) == (item.kind, item.mode):
            group.append(item)
    return families
