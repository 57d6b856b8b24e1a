"""Stored counters and buckets added up over all slots by one of their labels.

What does not change between two readings is kept: of each file which cells belong to which sum, so that a reading is
one read and a few additions in C, however many routes there are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from promgun.metrics.catalog import BY_NAME
from promgun.store import format as fmt
from promgun.store.files import MAX_SIZE
from promgun.store.slots import VALUE_FILE
from promgun.system.safe_open import open_regular

_SUMMED = ("counter", "histogram")
#: Sample name and value of the label that is kept.
Key = tuple[str, str]


@dataclass(slots=True)
class _Known:
    """A file: which one it is, how far it was parsed, and the cells of each sum."""

    identity: tuple[int, int, int]
    parsed: int = fmt.HEADER_SIZE
    cells: dict[Key, list[int]] = field(default_factory=dict)
    picks: dict[Key, Callable[[Any], Any]] = field(default_factory=dict)


class StoredSums:
    """Reads the sums of some samples of the contract, again and again; ``kept`` maps each to the label it keeps."""

    def __init__(self, store: Path, kept: Mapping[str, str]) -> None:
        self._store = store
        self._kept = kept
        self._labels = {sample: _labels_of(sample) for sample in kept}
        self._known: dict[str, _Known] = {}

    def read(self) -> dict[str, dict[str, float]]:
        """Return the sums by sample name and value of its label; never raises for what stands in the store."""
        sums: dict[str, dict[str, float]] = {sample: {} for sample in self._kept}
        try:
            directory_fd = os.open(self._store, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        except OSError:
            return sums
        try:
            names = [name for name in os.listdir(directory_fd) if name.startswith(_SUMMED)]
            for name in sorted(name for name in names if VALUE_FILE.fullmatch(name)):
                for (sample, label), value in self._sums_of(directory_fd, name):
                    sums[sample][label] = sums[sample].get(label, 0.0) + value
        finally:
            os.close(directory_fd)
        return sums

    def _sums_of(self, directory_fd: int, name: str) -> Iterator[tuple[Key, float]]:
        read = _read(directory_fd, name)
        if read is None:
            return
        identity, data = read
        known = self._known.get(name)
        used = min(fmt.read_used(data), len(data))
        if known is None or known.identity != identity or used < known.parsed:
            known = self._known[name] = _Known(identity)
        if used > known.parsed:
            self._parse(known, data, used)
        cells = memoryview(data)[: len(data) - len(data) % 8].cast("d")
        for key, pick in known.picks.items():
            yield key, sum(pick(cells))

    def _parse(self, known: _Known, data: bytes, used: int) -> None:
        """Take in the entries that are new since the last reading."""
        found = fmt.scan(data, used, known.parsed)
        known.parsed = found.end
        for text, position in found.entries:
            _, sample, labels, _ = json.loads(text)
            # What an application puts under our names, and what damage makes of our keys, has other labels.
            if labels.keys() == self._labels.get(sample):
                known.cells.setdefault((sample, labels[self._kept[sample]]), []).append(position // 8)
        known.picks = {key: _picker(cells) for key, cells in known.cells.items()}


def _labels_of(sample: str) -> frozenset[str]:
    family = sample.removesuffix("_bucket")
    return frozenset(BY_NAME[family].labels) | ({"le"} if family != sample else set())


def _picker(cells: list[int]) -> Callable[[Any], Any]:
    # itemgetter gives a tuple only for two items or more
    return itemgetter(*cells) if len(cells) > 1 else itemgetter(slice(cells[0], cells[0] + 1))


def _read(directory_fd: int, name: str) -> tuple[tuple[int, int, int], bytes] | None:
    """Return which file bears the name, and the part of it that is in use; ``None`` for what is no such file."""
    try:
        fd = open_regular(directory_fd, name)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        header = os.pread(fd, fmt.HEADER_SIZE, 0)
        used = fmt.read_used(header)
        if status.st_size > MAX_SIZE or not fmt.HEADER_SIZE <= used <= status.st_size:
            return None
        return (status.st_dev, status.st_ino, fmt.read_edition(header)), os.pread(fd, used, 0)
    except OSError:
        return None
    finally:
        os.close(fd)
