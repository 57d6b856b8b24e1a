"""What a panel of the dashboard is, as data.

In queries ``<on>`` stands for the chosen job and instances, ``<of>`` for the chosen routes too, ``<rate>`` for the time
that rates look back for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "heatmap", "table"]
#: Lower bound and colour of each step.
Steps = tuple[tuple[float | None, str], ...]


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and what the legend says of each of its series (a column's title in a table)."""

    expr: str
    legend: str
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel: ``width`` in 24ths, ``height`` in units of 30 pixels, ``unit`` an id of Grafana's.

    ``steps`` colour a value; ``top`` is where an axis ends; ``calm`` leaves the trend out of a stat; ``hidden`` are
    columns that a table leaves out.
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
    calm: bool = False
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one title."""

    title: str
    panels: tuple[Panel, ...]
