"""A series of the page while its value is being merged."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

Pairs = tuple[tuple[str, str], ...]

_SUMMED = frozenset({"sum", "livesum"})
_FIRST = {"min": min, "livemin": min, "max": max, "livemax": max}


@dataclass(slots=True)
class Series:
    """One series of the page: family, sample name, labels, and the total so far.

    ``names`` are the label names in order; those of a histogram are without ``le``, which other metrics may have as
    an ordinary label. ``group`` is the labels without ``le``; ``upper`` is the bucket's bound, ``None`` without ``le``,
    NaN when ``le`` is not a number.
    """

    family: str
    kind: str
    mode: str
    sample: str
    labels: tuple[tuple[str, str], ...]
    documentation: str
    names: tuple[str, ...] = ()
    value: float = 0.0
    seen: int = 0
    stamp: float = 0.0
    group: tuple[tuple[str, str], ...] = field(init=False)
    upper: float | None = field(init=False)

    def __post_init__(self) -> None:
        bound = next((value for label, value in self.labels if label == "le"), None)
        self.upper = None if bound is None else number(bound)
        self.group = self.labels if bound is None else tuple(pair for pair in self.labels if pair[0] != "le")


def owner_label(names: Collection[str]) -> str:
    """Return the name of the label for the owning process: ``worker_id`` as in our families, ``pid`` if ``names`` has
    that already, ``promgun_worker_id`` if it has both.
    """
    name = "pid" if "worker_id" in names else "worker_id"
    if name in names:
        name = "promgun_worker_id"
    while name in names:
        name += "_"
    return name


def adds_up(series: Series) -> bool:
    """Whether the values of all processes are added up: all but gauges, and gauges of two modes."""
    return series.kind != "gauge" or series.mode in _SUMMED


def merge_gauge(series: Series, value: float, stamp: float) -> None:
    """Merge another value of a gauge into ``series``, as its mode says."""
    pick = _FIRST.get(series.mode)
    if series.mode in _SUMMED:
        series.value += value
    elif pick is not None:
        series.value = pick(series.value, value)
    elif series.mode.endswith("mostrecent"):
        if stamp > series.stamp:
            series.value, series.stamp = value, stamp
    else:
        series.value = value


def number(text: str) -> float:
    """Return the number that a text spells, NaN if it spells none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
