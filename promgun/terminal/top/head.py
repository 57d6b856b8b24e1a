"""The head of the terminal view: each figure as it is now, and a small bar chart of its last minute."""

from __future__ import annotations

from itertools import zip_longest

from promgun.status.figures import FIGURES, FINE, Figure
from promgun.status.texts import NOTHING
from promgun.terminal.top.charts import Glyphs, bars, pieces
from promgun.terminal.top.layout import Line, fit
from promgun.terminal.top.view import View

#: Widths in terminal cells: a figure's name, its value.
LABEL = 10
_VALUE = 13
#: Charts have at most one bar for each second of the minute.
_MOST_PIECES = 60
#: From this width on, figures stand in two columns.
_TWO_COLUMNS = 60
_GAP = "  "


LEFT = tuple(FIGURES[name] for name in ("requests", "errors", "utilised", "queue", "in use"))
RIGHT = tuple(FIGURES[name] for name in ("p50", "p95", "p99", "longest"))
WORKERS = FIGURES["workers"]


def head_lines(view: View, width: int, glyphs: Glyphs) -> list[Line]:
    """Return the line of workers by state, then the figures, in two columns where there is room."""
    if width < _TWO_COLUMNS:
        chart = max(0, width - LABEL - _VALUE)
        lines = [_workers(view, width, 0, 0, glyphs)]
        return lines + [_figure(view, figure, min(_MOST_PIECES, chart), width, glyphs) for figure in (*LEFT, *RIGHT)]
    half = (width - len(_GAP)) // 2
    chart = min(_MOST_PIECES, half - LABEL - _VALUE)
    lines = [_workers(view, width, chart, half + len(_GAP) + LABEL + _VALUE, glyphs)]
    blank: Line = [(" " * half, "plain")]
    for left, right in zip_longest(LEFT, RIGHT):
        beside = blank if right is None else _figure(view, right, chart, half, glyphs)
        lines.append([*_figure(view, left, chart, half, glyphs), (_GAP, "plain"), *beside])
    return lines


def _figure(view: View, figure: Figure, chart: int, width: int, glyphs: Glyphs) -> Line:
    text = figure.text(view.snapshot, view.interval).replace(NOTHING, glyphs.nothing)
    drawn = _chart(view, figure, chart, glyphs)
    return [
        (fit(figure.name, min(LABEL, width), glyphs), "label"),
        (fit(text, max(0, min(_VALUE, width - LABEL)), glyphs), _role(view, figure)),
        (fit(drawn, max(0, width - LABEL - _VALUE), glyphs), "chart"),
    ]


def _chart(view: View, figure: Figure, width: int, glyphs: Glyphs) -> str:
    if not width or not view.points:
        return ""
    values = pieces(view.points, figure.read, width, view.window, view.snapshot.at)
    return bars(values, figure.ceiling(view.points), glyphs)


def _role(view: View, figure: Figure) -> str:
    level = figure.level(view.snapshot, view.interval)
    return "value" if level == FINE else level


def _workers(view: View, width: int, chart: int, chart_at: int, glyphs: Glyphs) -> Line:
    """Return the line of workers by state, as wide as both columns; its chart stands above those of the right one."""
    room = max(0, (chart_at or width) - LABEL)
    return [
        (fit(WORKERS.name, min(LABEL, width), glyphs), "label"),
        (fit(WORKERS.text(view.snapshot, view.interval), room, glyphs), _role(view, WORKERS)),
        (fit(_chart(view, WORKERS, chart, glyphs), chart, glyphs), "chart"),
    ]
