"""The panels of the dashboard as data.

In a query ``<servers>`` stands for the matchers of the chosen job and instances, ``<routes>`` for these and the one of
the chosen routes, ``<rate>`` for how far rates look back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "heatmap", "table"]
#: Lower bound and colour of each step.
Steps = tuple[tuple[float | None, str], ...]


@dataclass(frozen=True, slots=True)
class Query:
    """A query in PromQL, and the legend of its series; in a table, the title of its column."""

    expr: str
    legend: str
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel: ``width`` in 24ths, ``height`` in units of 30 pixels, ``unit`` as Grafana calls it.

    ``steps`` colour values; ``top`` is the largest value of the axis; ``trend`` is the line behind the number of a
    stat; ``hidden`` are the columns that a table does not show.
    """

    title: str
    text: str
    kind: Kind = "timeseries"
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 8
    height: int = 8
    stacked: bool = False
    bars: bool = False
    steps: Steps = ()
    top: float | None = None
    trend: bool = True
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one title."""

    title: str
    panels: tuple[Panel, ...]
