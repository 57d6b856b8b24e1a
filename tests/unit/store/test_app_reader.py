"""Definitions as the page goes by them: the newest decides what is shown, whichever worker made what."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

import pytest

from promgun.store.app_reader import AppReader
from promgun.store.definitions import ENUM, INFO, SCHEMA, spell
from promgun.store.row_format import CellGroup, RowSchema
from promgun.store.row_total import RowTotal
from promgun.store.series import Series


def cells(*numbers: float) -> bytes:
    return array("d", numbers).tobytes()


def row(parts: Mapping[int, tuple[float, ...]], kind: str, family: str, labels: Any, detail: Any = ()) -> RowTotal:
    """Return a definition in slots; each part is (defined, changed, state, pid)."""
    text = spell(kind, family, "Help.", labels, detail)
    assert text is not None
    return RowTotal(SCHEMA, (text,), 0, parts={slot: cells(*numbers) for slot, numbers in parts.items()})


def read(*rows: RowTotal, living: Mapping[int, int] | None = None) -> tuple[AppReader, dict[str, float]]:
    """Return a reader and the series of infos and enums; ``living`` are pids by slot."""
    reader = AppReader()
    pids = living or {}
    found = reader.read(rows, lambda slot, pid: pids.get(slot) == pid)
    return reader, {spelled(item): item.value for item in found}


def spelled(item: Series) -> str:
    return f"{item.sample}{{{','.join(f'{name}={value}' for name, value in item.labels)}}}"


def test_of_an_info_what_was_set_last_is_shown() -> None:
    old = row({1: (1, 5, 0, 10), 2: (2, 2, 0, 20)}, INFO, "build", {}, {"version": "1"})
    new = row({1: (1, 4, 0, 10)}, INFO, "build", {}, {"version": "2"})
    assert read(old, new)[1] == {"build_info{version=1}": 1.0}
    new.set_part(3, cells(3.0, 6.0, 0.0, 30.0))
    assert read(old, new)[1] == {"build_info{version=2}": 1.0}


def test_an_info_with_other_labels_than_the_newest_is_not_shown() -> None:
    old = row({1: (1, 9, 0, 10)}, INFO, "build", {"a": "x"}, {"version": "1"})
    new = row({1: (2, 2, 0, 10)}, INFO, "build", {"b": "x"}, {"version": "2"})
    assert read(old, new)[1] == {"build_info{b=x,version=2}": 1.0}


UP, DOWN = 0.0, 1.0


@pytest.mark.parametrize(
    ("parts", "living", "shown"),
    [
        ({1: (1, 1, UP, 10), 2: (1, 2, UP, 20)}, {1: 10, 2: 20}, {"": "up"}),
        ({1: (1, 1, UP, 10), 2: (1, 2, DOWN, 20)}, {1: 10, 2: 20}, {"1": "up", "2": "down"}),
        # the worker of slot 2 ended: what it said last does not count beside a living one
        ({1: (1, 1, UP, 10), 2: (1, 2, DOWN, 20)}, {1: 10, 2: 21}, {"": "up"}),
        # none lives: what was said last
        ({1: (1, 1, UP, 10), 2: (1, 2, DOWN, 20)}, {}, {"": "down"}),
    ],
)
def test_an_enum_has_one_state_while_workers_agree_and_else_one_each(
    parts: dict[int, tuple[float, ...]], living: dict[int, int], shown: dict[str, str]
) -> None:
    _, found = read(row(parts, ENUM, "state", {}, ["up", "down"]), living=living)
    expected = {}
    for worker, state in shown.items():
        for name in ("up", "down"):
            labels = f"state={name}" + (f",worker_id={worker}" if worker else "")
            expected[f"state{{{labels}}}"] = float(name == state)
    assert found == expected


def test_an_enum_with_other_states_is_shown_with_the_newest() -> None:
    old = row({1: (1, 9, 1, 10)}, ENUM, "state", {}, ["up", "down"])
    new = row({2: (2, 2, 0, 20)}, ENUM, "state", {}, ["on", "off"])
    assert read(old, new, living={1: 10, 2: 20})[1] == {"state{state=on}": 1.0, "state{state=off}": 0.0}


def test_rows_of_ours_and_nonsense_are_no_definitions() -> None:
    ours = RowTotal(RowSchema((), (CellGroup("x_total", ()),)), (), 0, parts={1: cells(1.0)})
    nonsense = RowTotal(SCHEMA, ("[1]",), 0, parts={1: cells(1.0, 1.0, 0.0, 1.0)})
    reader, found = read(ours, nonsense)
    assert not found
    assert not reader.newest


def item(kind: str, value: float = 1.0, mode: str = "", **labels: str) -> Series:
    names = tuple(sorted(name for name in labels if name != "le"))
    return Series("m", kind, mode, "m", tuple(sorted(labels.items())), "Old help.", names, value)


def shown(reader: AppReader, *series: Series) -> dict[str, float]:
    return {spelled(found): found.value for found in reader.shown(list(series))}


def test_only_series_that_fit_the_newest_definition_are_shown() -> None:
    reader, _ = read(
        row({1: (1, 1, 0, 1)}, "counter", "m", ["a"]), row({1: (2, 2, 0, 1)}, "gauge_all", "m", ["a", "worker_id"])
    )
    assert shown(
        reader,
        item("counter", a="x"),
        item("gauge", mode="max", a="x", worker_id="x"),
        item("gauge", 3.0, mode="all", a="x", worker_id="x", pid="1"),
        item("gauge", mode="all", a="x", worker_id="1"),
    ) == {"m{a=x,pid=1,worker_id=x}": 3.0}
    kept = item("gauge", mode="all", a="x", worker_id="x", pid="1")
    reader.shown([kept])
    assert kept.documentation == "Help."


def test_without_one_set_of_labels_all_series_of_the_kind_are_shown() -> None:
    reader, _ = read(row({1: (1, 1, 0, 1)}, "counter", "m", None))
    assert shown(reader, item("counter", a="x"), item("counter", b="y"), item("gauge", mode="max")) == {
        "m{a=x}": 1.0,
        "m{b=y}": 1.0,
    }


def test_observations_of_other_buckets_move_to_the_next_that_surely_has_them() -> None:
    reader, _ = read(row({1: (1, 1, 0, 1)}, "histogram", "m", [], [1.0, 10.0]))
    counted = shown(
        reader,
        item("histogram", 2.0, le="0.5"),
        item("histogram", 3.0, le="1.0"),
        item("histogram", 4.0, le="5.0"),
        item("histogram", 5.0, le="20.0"),
        item("histogram", 6.0, le="+Inf"),
    )
    assert counted == {"m{le=1.0}": 5.0, "m{le=10.0}": 4.0, "m{le=+Inf}": 11.0}
    assert math.fsum(counted.values()) == 20.0
