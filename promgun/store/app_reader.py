"""Applies the newest definitions of the application's metrics: selects series, and makes those of infos and enums."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from promgun.store.definitions import CHANGED, DEFINED, ENUM, INFO, OWNER, SCHEMA, STATE, Definition, parse_definition
from promgun.store.format import go_string
from promgun.store.row_total import Numbers, RowTotal
from promgun.store.series import Pairs, Series, owner_label

_ContentRow = tuple[int, Numbers, Definition]


class AppReader:
    """Reads the rows of definitions, once per page. ``newest`` maps each family to its newest definition."""

    def __init__(self) -> None:
        self.newest: dict[str, Definition] = {}
        self._last: tuple[list[Series], dict[str, Definition], list[Series]] = [], {}, []

    def read(self, totals: Iterable[RowTotal], is_current: Callable[[int, int], bool]) -> list[Series]:
        """Return the series of infos and enums.

        ``is_current`` takes a slot and a pid and tells whether that worker lives. Of an info the content set last is
        shown. Of an enum there is one state, or one for each worker where workers differ.
        """
        contents: dict[tuple[str, Pairs], list[_ContentRow]] = {}
        newest: dict[str, tuple[float, Definition]] = {}
        for total in totals:
            definition = parse_definition(total.values[0]) if total.schema == SCHEMA else None
            if definition is None:
                continue
            for slot, numbers in total.cells_by_file():
                before = newest.get(definition.family)
                if before is None or numbers[DEFINED] > before[0]:
                    newest[definition.family] = numbers[DEFINED], definition
                if definition.kind in (INFO, ENUM):
                    contents.setdefault((definition.family, definition.labels), []).append((slot, numbers, definition))
        self.newest = {family: definition for family, (_, definition) in newest.items()}
        found: list[Series] = []
        for (family, _), every in contents.items():
            now = self.newest[family]
            rows = [row for row in every if row[2].kind == now.kind and row[2].names == now.names]
            if rows and now.kind == INFO:
                found.append(_info(max(rows, key=_changed)[2], now))
            elif rows:
                found += _enum([row for row in rows if row[2].states == now.states], now, is_current)
        return found

    def shown(self, series: list[Series]) -> list[Series]:
        """Return those of ``series`` that match the newest definition of their family; histograms get its buckets."""
        if series == self._last[0] and self.newest == self._last[1]:
            return self._last[2]
        shown, is_plain = self._select(series)
        self._last = (series, self.newest, shown) if is_plain else ([], {}, [])
        return shown

    def _select(self, series: list[Series]) -> tuple[list[Series], bool]:
        """Return them, and whether they are some of ``series`` with nothing added to any."""
        shown: list[Series] = []
        moved: dict[tuple[str, Pairs, float], Series] = {}
        lost: list[tuple[Series, float]] = []
        for item in series:
            now = self.newest.get(item.family)
            if now is not None and not _is_of(item, now):
                continue
            if now is not None:
                item.documentation = now.documentation
                if now.bounds and item.upper is not None and item.upper not in (*now.bounds, math.inf):
                    upper = item.upper
                    lost.append((item, next((bound for bound in now.bounds if bound > upper), math.inf)))
                    continue
            shown.append(item)
        if lost:
            moved = {(item.family, item.group, item.upper): item for item in shown if item.upper is not None}
        for item, bound in lost:
            # Observations up to the old bound are also up to the next higher new bound; counts and sums stay the same.
            key = item.family, item.group, bound
            target = moved.get(key)
            if target is None:
                pairs = tuple((name, go_string(bound) if name == "le" else value) for name, value in item.labels)
                target = moved[key] = replace(item, labels=pairs, value=0.0)
                shown.append(target)
            target.value += item.value
        return shown, not lost


def _changed(row: _ContentRow) -> float:
    return row[1][CHANGED]


def _is_of(item: Series, now: Definition) -> bool:
    kind = item.kind if not item.mode else f"{item.kind}_{item.mode}"
    if kind != now.kind:
        return False
    if now.names is None:
        return True
    added = (owner_label(now.names),) if item.mode in ("all", "liveall") else ()
    return item.names == tuple(sorted((*now.names, *added)))


def _info(row: Definition, now: Definition) -> Series:
    sample = f"{row.family}_info"
    return _series(now, INFO, sample, tuple(sorted({**dict(row.labels), **dict(row.content)}.items())), 1.0)


def _enum(rows: list[_ContentRow], now: Definition, is_current: Callable[[int, int], bool]) -> Iterable[Series]:
    if not rows:
        return
    last = max(rows, key=_changed)
    states = {slot: int(numbers[STATE]) for slot, numbers, _ in rows if is_current(slot, int(numbers[OWNER]))}
    labels = dict(last[2].labels)
    if len(set(states.values())) < 2:  # noqa: PLR2004 - they do not differ
        yield from _states(now, labels, next(iter(states.values()), int(last[1][STATE])))
        return
    for slot, state in sorted(states.items()):
        yield from _states(now, {owner_label((*labels, now.family)): str(slot), **labels}, state)


def _states(now: Definition, labels: Mapping[str, str], state: int) -> Iterable[Series]:
    for position, name in enumerate(now.states):
        pairs = tuple(sorted({**labels, now.family: name}.items()))
        yield _series(now, ENUM, now.family, pairs, float(position == state))


def _series(now: Definition, kind: str, sample: str, pairs: Pairs, value: float) -> Series:
    return Series(now.family, kind, "", sample, pairs, now.documentation, tuple(name for name, _ in pairs), value)
