"""Adds up the application's value files of one kind; which value belongs to which series is kept between readings.

Values of series that add up (counters, histograms, summaries, gauges of the modes ``sum`` and ``livesum``) are taken
out of each file in the same order of series, and added file by file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import add

from promgun.store.file_follower import FollowedFile, Pick, picker
from promgun.store.series import Series, adds_up

#: A zero, which stands behind a file's content for the series that the file does not have.
_ZERO = bytes(8)


class FileSums:
    """Adds up files, reading after reading; call :meth:`add` with those of one reading, in the order of their sums."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], _Layout] = {}

    def add(self, files: Sequence[FollowedFile], seen: int) -> Iterator[FollowedFile]:
        """Set value and ``seen`` of each series that adds up; yield the files whose series do not."""
        by_kind: dict[tuple[str, str], list[FollowedFile]] = {}
        for file in files:
            if file.pick is not None:
                by_kind.setdefault(_kind_of(file), []).append(file)
        for kind, together in by_kind.items():
            layout = self._kinds.get(kind)
            if layout is None or not layout.is_of(together):
                layout = self._kinds[kind] = _Layout(together)
            if layout.is_usable:
                layout.add(together, seen)
            else:
                yield from together


def _kind_of(file: FollowedFile) -> tuple[str, str]:
    first = file.series[0]
    return first.kind, first.mode


class _Layout:
    """The series of some files, and how to take their values out of each file in the order of the series."""

    def __init__(self, files: Sequence[FollowedFile]) -> None:
        self._of = [file.pick for file in files]
        self._picks: list[tuple[Pick | None, bool]] = []
        self._series: list[Series] = []
        # An entry that a damaged file has twice counts twice.
        self.is_usable = adds_up(files[0].series[0]) and all(
            len(set(map(id, file.series))) == len(file.series) for file in files
        )
        if self.is_usable:
            self._arrange(files)

    def is_of(self, files: Sequence[FollowedFile]) -> bool:
        """Whether these files have the same values at the same places; a file with a new entry has another pick."""
        return len(files) == len(self._of) and all(
            file.pick is pick for file, pick in zip(files, self._of, strict=True)
        )

    def _arrange(self, files: Sequence[FollowedFile]) -> None:
        places: dict[int, int] = {}
        for file in files:
            for series in file.series:
                if id(series) not in places:
                    places[id(series)] = len(self._series)
                    self._series.append(series)
        for file in files:
            behind = file.parsed // 8
            offsets = [behind] * len(self._series)
            for series, offset in zip(file.series, file.offsets, strict=True):
                offsets[places[id(series)]] = offset
            pick = file.pick if offsets == file.offsets else picker(offsets)
            self._picks.append((pick, behind in offsets))

    def add(self, files: Sequence[FollowedFile], seen: int) -> None:
        """Set the sums."""
        totals: Sequence[float] = ()
        for file, (pick, has_gaps) in zip(files, self._picks, strict=True):
            data = file.data + _ZERO if has_gaps else file.data
            values = () if pick is None else pick(memoryview(data).cast("d"))
            totals = list(map(add, totals, values)) if totals else values
        for series, total in zip(self._series, totals, strict=True):
            series.value = total
            series.seen = seen
            series.stamp = 0.0
