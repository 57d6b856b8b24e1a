"""Columns: a family, label sets, and their values. Those of workers hold all workers at once: a page of 128 workers has
more than 3,000 lines of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeVar

from promgun.metrics.spec import CounterFamily, GaugeFamily, Labels, MetricSpec

_Value = TypeVar("_Value", bound=str)

#: The label values of some series, in the catalogue's order of labels. Kept between pages: the same object again tells
#: that they have not changed.
Sets = tuple[tuple[str, ...], ...]
#: Label sets, and the value of each.
Column = tuple[Sets, list[float]]
FamilyColumn = tuple[MetricSpec, Sets, list[float]]


def column(
    family: CounterFamily[Labels] | GaugeFamily[Labels], sets: tuple[Labels, ...], values: Iterable[float]
) -> FamilyColumn:
    """Return a column whose label values have the types that the family wants."""
    return family, sets, list(map(float, values))


def row(family: CounterFamily[Labels] | GaugeFamily[Labels], values: Labels, value: float) -> FamilyColumn:
    """Return a column of one label set."""
    return family, (values,), [value]


@lru_cache(maxsize=64)
def ids_of(slots: tuple[int, ...]) -> tuple[tuple[str], ...]:
    """Return the label sets of families whose only label is ``worker_id``."""
    return tuple((str(slot),) for slot in slots)


@lru_cache(maxsize=64)
def ids_by(slots: tuple[int, ...], values: tuple[_Value, ...]) -> tuple[tuple[str, _Value], ...]:
    """Return the label sets of families with another label, each of whose values every slot has."""
    return tuple((str(slot), value) for slot in slots for value in values)


def known(slots: Sequence[int], values: Iterable[float | None]) -> tuple[tuple[tuple[str], ...], list[float]]:
    """Return label sets and values of those slots that have one."""
    found = [(slot, value) for slot, value in zip(slots, values, strict=True) if value is not None]
    return ids_of(tuple([slot for slot, _ in found])), [value for _, value in found]
