"""Follows the value files of a store from reading to reading: where each series stands, and the last good content.

Files are read with ``pread`` and never mapped. The positions of series in a file rarely change, so they are kept: a
reading costs one read a file plus the work for what changed. A damaged or unreadable file keeps its last good values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from promgun.store import format as fmt
from promgun.store.files import MAX_SIZE
from promgun.store.folder_listing import Entries, FolderListing
from promgun.store.run_directory import MASTER, SLOTS
from promgun.store.run_reader import master_slot
from promgun.store.series import Series
from promgun.store.series_table import TOO_MANY, SeriesTable
from promgun.system.safe_open import open_regular, opened_folder

#: The order of reading; other kinds come last. Counters are summed before gauges of the same name are looked at.
_KINDS = ("counter", "histogram", "summary", "gauge")
#: The most bytes of all files together, and the most files; files beyond either limit are left out.
MOST_BYTES = 64 << 20
MOST_FILES = 4096
_NO_ROOM = "more than what one reading may hold"
Pick = Callable[[Any], Any]


@dataclass(slots=True)
class FollowedFile:
    """The known state of one file.

    ``identity`` is device, inode and edition; ``end`` is what the header said last; ``data`` is the last undamaged
    content. ``size`` is in bytes, ``None`` when the file could not be read this time. ``pick`` takes the series' values
    out of the content.
    """

    identity: tuple[int, int, int] = (0, 0, 0)
    end: int = fmt.HEADER_SIZE
    parsed: int = fmt.HEADER_SIZE
    series: list[Series] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    pick: Pick | None = None
    data: bytes = b""
    damage: str = ""
    size: int | None = None

    def begin_again(self) -> None:
        """Have all entries looked at in the next reading, also those that found no room."""
        self.end = self.parsed = fmt.HEADER_SIZE
        self.series.clear()
        self.offsets.clear()
        self.pick = None

    @property
    def cells(self) -> memoryview[float]:
        """The content as float64: the value of ``series[i]`` stands at ``offsets[i]``, its time stamp behind it."""
        return memoryview(self.data)[: len(self.data) - len(self.data) % 8].cast("d")


#: The number that stands for child processes that are no forks: above every slot's.
CHILDREN = 1 << 30
#: The folders of a run with value files, the pattern of their names, and how a name's number becomes a slot's number.
_FOLDERS = (
    (MASTER, re.compile(r"m(\d{1,3})\.(counter|histogram|summary|gauge_[a-z]+)"), master_slot),
    (SLOTS, re.compile(r"(\d{1,6})\.(counter|histogram|summary|gauge_[a-z]+)"), int),
)


#: Where a file comes: its type's kind, its type, its slot.
_Place = tuple[int, str, int]


def _places(entries: Entries, pattern: re.Pattern[str], slot_of: Callable[[int], int]) -> list[tuple[_Place, str]]:
    """Return the value files among entries of a folder.

    Kinds in a fixed order, then masters, then slots by number: the order of float additions must never change.
    """
    matches = [pattern.fullmatch(name) for name, _ in entries]
    return [
        ((_KINDS.index(match[2].partition("_")[0]), match[2], slot_of(int(match[1]))), match[0])
        for match in matches
        if match
    ]


class FileFollower:
    """Follows the value files of one store. ``corrupt`` counts damage found so far, once for each file and kind of
    damage.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.corrupt = 0
        self._known: dict[str, FollowedFile] = {}
        self._series = SeriesTable()
        #: bytes of all files together, those of this reading and those kept from the last
        self._held = 0
        #: keys first seen in this reading: most slots have the same ones, so each is parsed once
        self._parsed: dict[str, fmt.SeriesKey | None] = {}
        self._complaints: list[str] = []
        self._listings = {folder: FolderListing() for folder, _, _ in _FOLDERS}
        self._entries: dict[str, Entries] = {}
        self._places: dict[str, list[tuple[_Place, str]]] = {}

    def complaints(self) -> tuple[str, ...]:
        """Return what was found damaged since the last call."""
        complaints, self._complaints = tuple(self._complaints), []
        return complaints

    def interned(self) -> Iterator[Series]:
        """Yield every series that any file ever held, in the order they were found, without incomplete families."""
        return self._series.whole_families()

    def follow(self, wanted: Callable[[str, int], bool]) -> Iterator[FollowedFile]:
        """Read the files for which ``wanted(type, slot)`` is true, and yield them, always in the same order.

        The type is the first part of the file's name: ``counter``, ``gauge_livesum``. Yields nothing when there is no
        store; never raises because of a file's content.
        """
        present = set()
        self._held = sum(len(file.data) for file in self._known.values())
        self._make_room()
        with ExitStack() as opened:
            files: list[tuple[_Place, str, int]] = []
            for folder, pattern, slot_of in _FOLDERS:
                with suppress(OSError):
                    folder_fd = opened.enter_context(opened_folder(self.path / folder))
                    entries = self._listings[folder].read(folder_fd)
                    if entries is not self._entries.get(folder):
                        self._entries[folder] = entries
                        self._places[folder] = _places(entries, pattern, slot_of)
                    files += [(place, name, folder_fd) for place, name in self._places[folder]]
            for (_, kind, slot), name, folder_fd in sorted(files):
                present.add(name)
                if wanted(kind, slot) and self._has_room(name):
                    file = self._refresh(folder_fd, name, kind, slot)
                    if file is not None:
                        yield file
        for gone in sorted(self._known.keys() - present):
            # Only files of live gauges are ever removed. Any other keeps its last values: its owner makes it again.
            shown = any(map(self._series.is_whole, self._known[gone].series))
            if gone.partition(".")[2].startswith("gauge_live") or not shown:
                del self._known[gone]
            elif wanted(gone.partition(".")[2], 0):
                self._known[gone].size = None
                yield self._known[gone]
        self._parsed.clear()

    def _make_room(self) -> None:
        if self._series.make_room(series for file in self._known.values() for series in file.series):
            for file in self._known.values():
                if file.damage == TOO_MANY:
                    file.begin_again()

    def follow_children(self, kind: str, data: bytes) -> FollowedFile:
        """Return the counts of one kind by child processes that are no forks; ``data`` is in the format of a value
        file.
        """
        file = FollowedFile(data=data)
        self._add(file, fmt.scan(data, fmt.read_used(data), parse=self._parse), kind, CHILDREN)
        self._parsed.clear()
        return file

    def _has_room(self, name: str) -> bool:
        if name in self._known or len(self._known) < MOST_FILES:
            return True
        self._complain("", f"more than {MOST_FILES:,} files")
        return False

    def _refresh(self, directory_fd: int, name: str, kind: str, slot: int) -> FollowedFile | None:
        """Return a file as it is now, or as it was when last readable; ``None`` when it has just been removed."""
        try:
            fd = open_regular(directory_fd, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._last(name, error.strerror)
        try:
            return self._read(fd, name, kind, slot)
        except OSError as error:
            return self._last(name, error.strerror)
        finally:
            os.close(fd)

    def _read(self, fd: int, name: str, kind: str, slot: int) -> FollowedFile:
        # The header is read before the size, so a file that grows meanwhile is at least as long as the header says.
        head = os.pread(fd, fmt.HEADER_SIZE, 0)
        status = os.fstat(fd)
        if status.st_size > MAX_SIZE:
            return self._last(name, "oversize")
        known = self._known.setdefault(name, FollowedFile())
        if self._held - len(known.data) + status.st_size > MOST_BYTES:
            return self._last(name, _NO_ROOM)
        self._held -= len(known.data)
        # A file too short for a header is taken for the same file as before.
        edition = fmt.read_edition(head) if len(head) == fmt.HEADER_SIZE else known.identity[2]
        identity = (status.st_dev, status.st_ino, edition)
        if known.identity != identity:
            known = self._known[name] = FollowedFile(identity)
        end = fmt.read_used(head)
        data = os.pread(fd, min(max(end, known.parsed), status.st_size), 0)
        damage = known.damage
        if end != known.end:
            known.end = end
            found = fmt.scan(data, end, known.parsed, self._parse)
            damage = fmt.header_error(end, status.st_size) or found.error
            if damage or end < known.parsed:
                # Even if the header says less: a file's owner never removes entries.
                damage = damage or "header points before the end"
                data = os.pread(fd, status.st_size, 0)
                found = fmt.scan(data, len(data), known.parsed, self._parse)
            damage = self._add(known, found, kind, slot) or damage
        # What was read counts for this reading, what is kept for the next: nothing behind the last entry.
        self._held += len(data)
        if len(data) >= known.parsed:
            known.data = data[: known.parsed]
        else:
            damage = damage or "cut short"
        if damage:
            self._complain(name, damage)
        known.damage = damage
        known.size = status.st_size
        return known

    def _add(self, known: FollowedFile, found: fmt.Scan, kind: str, slot: int) -> str:
        """Add new entries; return what is wrong with them, empty when nothing is."""
        damage = ""
        for key, position in found.entries:
            series = self._series.find(kind, key, self._parse(key), _shown_slot(kind, slot))
            if series is None:
                damage = TOO_MANY if self._series.is_full else "a name or a bound that no metric has"
            else:
                known.series.append(series)
                known.offsets.append(position // 8)
        known.parsed = found.end
        known.pick = picker(known.offsets)
        return damage

    def _parse(self, key: str) -> fmt.SeriesKey | None:
        try:
            return self._parsed[key]
        except KeyError:
            parsed = self._parsed[key] = fmt.parse_series_key(key)
            return parsed

    def _last(self, name: str, reason: str | None) -> FollowedFile:
        """Return a file with the content of its last successful reading."""
        self._complain(name, reason or "unreadable")
        known = self._known[name]
        known.size = None
        return known

    def _complain(self, name: str, reason: str) -> None:
        known = self._known.setdefault(name, FollowedFile())
        if known.damage != reason:
            known.damage = reason
            self.corrupt += 1
            self._complaints.append(f"{name}: {reason}")


def _shown_slot(kind: str, slot: int) -> str:
    """Return the value of the label that tells processes apart, for gauges that each process has; else empty."""
    if kind not in ("gauge_all", "gauge_liveall"):
        return ""
    if slot == CHILDREN:
        return "child"
    return str(slot) if slot >= 0 else "master"


def picker(offsets: list[int]) -> Pick | None:
    """Return a function that gives a tuple of the values at these offsets; ``None`` when there are no offsets."""
    # itemgetter returns a tuple only for two or more items
    if len(offsets) == 1:
        return itemgetter(slice(offsets[0], offsets[0] + 1))
    return itemgetter(*offsets) if offsets else None
