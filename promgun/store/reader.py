"""The reader: all slots, merged, at any moment, whatever state the files are in.

Files are read with ``pread`` and never mapped. What does not change between two readings (which series stand where in
a file) is kept, so a reading costs what changed: one read a file and one addition a value. Sums run in slot order, so
no total ever sinks by a rounding error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from promgun.store import format as fmt
from promgun.store.files import MAX_SIZE
from promgun.store.series import Series, merge_gauge
from promgun.store.slots import VALUE_FILE
from promgun.system.safe_open import open_regular

#: Families of another kind sort behind: counters are summed before gauges of the same name are looked at.
_KINDS = ("counter", "histogram", "summary", "gauge")
#: What may follow the family's name in a sample's.
_SUFFIXES = {
    "counter": frozenset({"_total", "_created", ""}),
    "histogram": frozenset({"_bucket", "_sum", "_count", "_created"}),
    "summary": frozenset({"_sum", "_count", "_created", ""}),
    "gauge": frozenset({""}),
}


@dataclass(slots=True)
class _Known:
    """What is known of a file: which file it is, how far it was parsed, its series and how to pick their values.

    ``identity`` is device, inode and edition; ``end`` is what the header said last; ``data`` is the last content that
    was whole.
    """

    identity: tuple[int, int, int] = (0, 0, 0)
    end: int = fmt.HEADER_SIZE
    parsed: int = fmt.HEADER_SIZE
    series: list[Series] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    pick: Callable[[Any], tuple[float, ...]] | None = None
    data: bytes = b""
    damage: str = ""


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
        #: keys that were new in this reading: every slot has about the same ones
        self._parsed: dict[str, fmt.SeriesKey | None] = {}
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
            self._parsed.clear()
        current = self._round
        series = [item for item in self._series.values() if item.seen == current]
        return Reading(series, files, size, self._corrupt, tuple(self._complaints))

    def _read_file(self, directory_fd: int, name: str, kind: str, slot: int) -> int:
        """Add one file to the totals; return its size, or -1 when it is no file that can be read."""
        try:
            fd = open_regular(directory_fd, name)
        except FileNotFoundError:
            return -1
        except OSError as error:
            return self._use_last(name, error.strerror)
        try:
            return self._take_in(fd, name, kind, slot)
        except OSError as error:
            return self._use_last(name, error.strerror)
        finally:
            os.close(fd)

    def _take_in(self, fd: int, name: str, kind: str, slot: int) -> int:
        # The header before the size: a file that grows meanwhile is then as long as its header says.
        head = os.pread(fd, fmt.HEADER_SIZE, 0)
        status = os.fstat(fd)
        if status.st_size > MAX_SIZE:
            return self._use_last(name, "oversize")
        known = self._known.setdefault(name, _Known())
        # A file too short for a header is the one that it was.
        edition = fmt.read_edition(head) if len(head) == fmt.HEADER_SIZE else known.identity[2]
        identity = (status.st_dev, status.st_ino, edition)
        if known.identity != identity:
            known = self._known[name] = _Known(identity)
        end = fmt.read_used(head)
        data = os.pread(fd, min(max(end, known.parsed), status.st_size), 0)
        damage = known.damage
        if end != known.end:
            known.end = end
            found = fmt.scan(data, end, known.parsed, self._parse)
            damage = fmt.header_error(end, status.st_size) or found.error
            if damage or end < known.parsed:
                # Whatever the header says: entries are entries, and the owner of a file takes none away.
                damage = damage or "header points before the end"
                data = os.pread(fd, status.st_size, 0)
                found = fmt.scan(data, len(data), known.parsed, self._parse)
            damage = self._add(known, found, kind, slot) or damage
        if len(data) >= known.parsed:
            known.data = data
        else:
            damage = damage or "cut short"
        if damage:
            self._complain(name, damage)
        known.damage = damage
        self._accumulate(known)
        return status.st_size

    def _add(self, known: _Known, found: fmt.Scan, kind: str, slot: int) -> str:
        """Take in entries that are new; return what is wrong with them, if anything."""
        damage = ""
        for key, position in found.entries:
            series = self._intern(key, kind, slot)
            if series is None:
                damage = "a name that no metric has"
            else:
                known.series.append(series)
                known.offsets.append(position // 8)
        known.parsed = found.end
        known.pick = _picker(known.offsets)
        return damage

    def _parse(self, key: str) -> fmt.SeriesKey | None:
        try:
            return self._parsed[key]
        except KeyError:
            parsed = self._parsed[key] = fmt.parse_series_key(key)
            return parsed

    def _intern(self, key: str, kind: str, slot: int) -> Series | None:
        """Return the series that a key spells, ``None`` when no metric of that kind is called so."""
        per_slot = kind in ("gauge_all", "gauge_liveall")
        identity = (kind, key, str(slot) if per_slot else "")
        series = self._series.get(identity)
        if series is None:
            parsed = self._parse(key)
            if parsed is None:
                return None
            family, sample, labels, documentation = parsed
            name, _, mode = kind.partition("_")
            if not family or not sample.startswith(family) or sample[len(family) :] not in _SUFFIXES[name]:
                return None
            if per_slot:
                labels = {**labels, "pid": f"slot{slot}"}
            pairs = tuple(sorted((_printable(label), _printable(value)) for label, value in labels.items()))
            series = self._series[identity] = Series(
                family=_printable(family),
                kind=name,
                mode=mode,
                sample=_printable(sample),
                labels=pairs,
                documentation=_printable(documentation),
                names=tuple(label for label, _ in pairs if label != "le"),
            )
        return series

    def _accumulate(self, known: _Known) -> None:
        if known.pick is None:
            return
        data = known.data
        cells = memoryview(data)[: len(data) - len(data) % 8].cast("d")
        current = self._round
        for series, value, offset in zip(known.series, known.pick(cells), known.offsets, strict=True):
            if series.seen != current:
                series.seen = current
                series.value = value
                series.stamp = cells[offset + 1] if series.mode.endswith("mostrecent") else 0.0
            elif series.kind != "gauge":
                series.value += value
            else:
                merge_gauge(series, value, cells[offset + 1])

    def _use_last(self, name: str, reason: str | None) -> int:
        """Go on with what a file held when it could be read last."""
        self._complain(name, reason or "unreadable")
        self._accumulate(self._known[name])
        return -1

    def _complain(self, name: str, reason: str) -> None:
        known = self._known.setdefault(name, _Known())
        if known.damage != reason:
            known.damage = reason
            self._corrupt += 1
            self._complaints.append(f"{name}: {reason}")


def _printable(text: str) -> str:
    """Return ``text`` without halves of surrogate pairs: JSON can spell them, no page can."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


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
        group = families.get(item.family)
        if group is None:
            families[item.family] = [item]
        elif group[0].kind == item.kind and group[0].mode == item.mode:
            group.append(item)
    return families
