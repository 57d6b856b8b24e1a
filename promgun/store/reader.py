"""The values of all slots, merged, at any moment, whatever state the files are in.

A reading costs one read a file and one addition a value. Sums run in slot order, so no total ever sinks by a rounding
error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from promgun.store.file_follower import FileFollower, FollowedFile, Pick, picker
from promgun.store.series import Series, merge_gauge


@dataclass(frozen=True, slots=True)
class StoredValues:
    """Every series that stands in a file, plus what the files take up and what could not be read.

    ``corrupt`` counts files found damaged since the reader was made, each once for each damage; ``complaints`` are
    those that were not told yet.
    """

    series: list[Series]
    files: int
    size: int
    corrupt: int
    complaints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SumBy:
    """A sum to make: the series of one sample over all slots and all labels but one.

    ``kind`` is counter or histogram, ``names`` are the labels that the sample has by contract, in alphabetical order
    and without ``le``: series with others are not ours.
    """

    sample: str
    label: str
    kind: str
    names: tuple[str, ...]

    def key_of(self, series: Series) -> str | None:
        """Return the value of the label, ``None`` for a series that is not part of the sum."""
        if series.kind != self.kind or series.names != self.names:
            return None
        return next((value for name, value in series.labels if name == self.label), None)


#: By sample name and value of the label that is kept.
Sums = dict[str, dict[str, float]]


class StoreReader:
    """Reads one store again and again, from one thread at a time.

    ``alive`` tells whether the owner of a slot lives, for gauges of live modes; ``sums`` are those that
    :meth:`read_sums` makes.
    """

    def __init__(self, path: Path, alive: Callable[[int], bool] = lambda _: True, sums: Sequence[SumBy] = ()) -> None:
        self._files = FileFollower(path)
        self._alive = alive
        self._round = 0
        self._sums = {wanted.sample: wanted for wanted in sums}
        self._kinds = frozenset(wanted.kind for wanted in sums)
        self._picks: dict[int, _Picks] = {}

    def read(self) -> StoredValues:
        """Read and merge everything; never raises for what stands in the store."""
        self._round += 1
        files, size = 0, 0
        for file in self._files.follow(lambda kind, slot: not kind.startswith("gauge_live") or self._alive(slot)):
            if file.size is not None:
                files += 1
                size += file.size
            self._accumulate(file)
        series = [item for item in self._files.interned() if item.seen == self._round]
        return StoredValues(series, files, size, self._files.corrupt, self._files.complaints())

    def _accumulate(self, file: FollowedFile) -> None:
        if file.pick is None:
            return
        cells = file.cells
        current = self._round
        for series, value, offset in zip(file.series, file.pick(cells), file.offsets, strict=True):
            if series.seen != current:
                series.seen = current
                series.value = value
                series.stamp = cells[offset + 1] if series.mode.endswith("mostrecent") else 0.0
            elif series.kind != "gauge":
                series.value += value
            else:
                merge_gauge(series, value, cells[offset + 1])

    def read_sums(self) -> Sums:
        """Return the sums: a few additions in C for each file, however many series there are; never raises either."""
        sums: Sums = {sample: {} for sample in self._sums}
        picks: dict[int, _Picks] = {}
        for file in self._files.follow(lambda kind, _: kind in self._kinds):
            known = self._picks.get(id(file))
            if known is None or known.file is not file or known.series != len(file.series):
                known = self._picks_of(file)
            picks[id(file)] = known
            cells = file.cells
            for sample, value, pick in known.picks:
                found = sums[sample]
                found[value] = found.get(value, 0.0) + sum(pick(cells))
        self._picks = picks
        return sums

    def _picks_of(self, file: FollowedFile) -> _Picks:
        offsets: dict[tuple[str, str], list[int]] = {}
        for series, offset in zip(file.series, file.offsets, strict=True):
            wanted = self._sums.get(series.sample)
            value = wanted.key_of(series) if wanted is not None else None
            if value is not None:
                offsets.setdefault((series.sample, value), []).append(offset)
        picks = [(*key, pick) for key, found in offsets.items() if (pick := picker(found)) is not None]
        return _Picks(file, len(file.series), picks)


@dataclass(frozen=True, slots=True)
class _Picks:
    """The cells of a file that belong to each sum, of so many ``series``: a file that grew has more."""

    file: FollowedFile
    series: int
    picks: list[tuple[str, str, Pick]]


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
