"""Reads and merges the values of all slots, at any moment and whatever the state of the files.

Our own families are rows (``store.row_reader``); the application's are in files of prometheus_client's format
(``store.file_follower``). A reading costs one read a file, plus the work for what has changed. Sums are made in slot
order, so that no total decreases by a rounding error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path

from promgun.store.app_reader import AppReader
from promgun.store.board import Cell
from promgun.store.definitions import SCHEMA as DEFINITIONS
from promgun.store.file_follower import FileFollower, FollowedFile
from promgun.store.file_sums import FileSums
from promgun.store.folding import fold_dead
from promgun.store.foreign_reader import ForeignReader, ForeignReading
from promgun.store.own_families import Fold, OwnFamilies, sum_by, sum_by_slot
from promgun.store.row_reader import RowContent, RowReader
from promgun.store.row_total import RowTotal
from promgun.store.run_places import open_run
from promgun.store.series import Series, merge_gauge
from promgun.store.slot_contents import SlotContent, SlotContents
from promgun.system.kept_files import KeptFiles

_PID = int(Cell.PID)
#: Sums by name, then by the value of the remaining label: a bound's text for ``le``, a slot's number for slots.
Sums = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class StoredValues:
    """The result of a reading: every number, the size of the files, and the damage.

    ``own`` are our families, ``series`` the application's series. ``by_slot`` are the requested sums by slot.
    ``corrupt`` counts damage found since the reader was made, each once; ``complaints`` describe what was found since
    the last reading.
    """

    own: OwnFamilies
    series: list[Series]
    by_slot: Sums
    files: int
    size: int
    corrupt: int
    complaints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SumBy:
    """A sum to make, under ``name``: one family of ours, added up over all slots and over all labels but one.

    ``label`` is ``le`` for the buckets of a histogram (not cumulative), and empty for a sum by slot, of which a reader
    has one. To that is added what masters counted by ``worker_id`` under ``name``, for workers that had ended.
    """

    name: str
    family: str
    label: str


class StoreReader:
    """Reads one store repeatedly, from one thread at a time.

    ``alive`` tells whether the owner of a slot lives, for gauges of live modes; ``sums`` are those that
    :meth:`read_sums` makes. Files of slots stay open in ``kept``. Rows whose first family is ``unshown`` are for sums
    alone.
    """

    def __init__(
        self,
        path: Path,
        alive: Callable[[int], bool] = lambda _: True,
        sums: Sequence[SumBy] = (),
        kept: KeptFiles | None = None,
        *,
        unshown: str = "",
    ) -> None:
        self._slots = SlotContents(path, kept)
        self._unshown = {unshown, DEFINITIONS.groups[0].family}
        self._files = FileFollower(path)
        self._file_sums = FileSums()
        self._sums = tuple(sums)
        self._rows = RowReader(next((wanted.family for wanted in sums if not wanted.label), ""))
        self._app = AppReader()
        self._pids: dict[int, int] = {}
        self._alive = alive
        self._round = 0
        self._children = _children_of(path)
        self._row_files = 0
        self._row_bytes = 0

    def read_slots(self) -> list[SlotContent]:
        """Read the files of masters and slots: their boards, and the rows for one of the other readings."""
        return self._slots.read()

    def read(self, fold: Fold, slots: Iterable[SlotContent] | None = None) -> StoredValues:
        """Read and merge everything; never raises because of the store's content. ``fold`` applies the cap on label
        sets; ``slots`` are the files of slots, if they have been read.
        """
        self._round += 1
        totals = self._read_rows(slots)
        files, size = self._row_files, self._row_bytes
        followed = list(self._files.follow(lambda kind, slot: not kind.startswith("gauge_live") or self._alive(slot)))
        for file in followed:
            if file.size is not None:
                files += 1
                size += file.size
        for file in self._file_sums.add(followed, self._round):
            self._accumulate(file)
        children = self._read_children()
        for content in children.contents:
            self._accumulate(self._files.follow_children(content.kind, content.data))
        files, size = files + children.files, size + children.size
        own = OwnFamilies()
        own.add_rows(chain.from_iterable(self._shown(totals)), fold)
        app_series = self._app.read(totals, lambda slot, pid: self._pids.get(slot) == pid and self._alive(slot))
        series = [*self._app.shown([item for item in self._files.interned() if item.seen == self._round]), *app_series]
        corrupt = self._files.corrupt + self._rows.corrupt + children.corrupt
        by_slot = {wanted.name: self._sum(totals, wanted) for wanted in self._sums if not wanted.label}
        return StoredValues(
            own,
            series,
            by_slot,
            files,
            size,
            corrupt,
            (*self._files.complaints(), *children.complaints),
        )

    def _shown(self, totals: Iterable[RowTotal]) -> Iterator[Iterable[RowTotal]]:
        for schema, rows in groupby(totals, attrgetter("schema")):
            if schema.groups[0].family not in self._unshown:
                yield rows

    def _read_children(self) -> ForeignReading:
        if self._children is None:
            return ForeignReading()
        reading = self._children.read()
        if self._children.vanished:
            # Only this process knows the content of a file that somebody removed: save it before the process ends.
            fold_dead(self._children.run, self._children)
        return reading

    def _read_rows(self, slots: Iterable[SlotContent] | None) -> list[RowTotal]:
        slots = list(self._slots.read() if slots is None else slots)
        self._row_files, self._row_bytes = len(slots), sum([slot.size for slot in slots])
        boards = [slot.board for slot in slots]
        self._pids.update([(board.slot, board.cells[_PID]) for board in boards])
        return self._rows.read([RowContent(slot.board.slot, slot.identity, 0, slot.rows) for slot in slots])

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
        """Return only the sums; never raises because of the store's content."""
        return self.read_totals()[0]

    def read_totals(self, slots: Iterable[SlotContent] | None = None) -> tuple[Sums, list[RowTotal]]:
        """Return the sums, and the rows that they are made of; never raises because of the store's content."""
        totals = self._read_rows(slots)
        return {wanted.name: self._sum(totals, wanted) for wanted in self._sums}, totals

    def _sum(self, totals: Sequence[RowTotal], wanted: SumBy) -> dict[str, float]:
        if wanted.label:
            return sum_by(totals, wanted.family, wanted.label)
        return sum_by_slot(totals, self._rows.sums_by_file(), wanted.name)


def _children_of(path: Path) -> ForeignReader | None:
    """Return a reader of the child processes' files; ``None`` where there is no run."""
    try:
        return ForeignReader(open_run(path))
    except OSError:
        return None


def families_of(series: Iterable[Series]) -> dict[str, list[Series]]:
    """Group series by family; of two kinds under one name the first is kept: a page may give a family one type only."""
    families: dict[str, list[Series]] = {}
    for item in series:
        group = families.get(item.family)
        if group is None:
            families[item.family] = [item]
        elif group[0].kind == item.kind and group[0].mode == item.mode:
            group.append(item)
    return families
