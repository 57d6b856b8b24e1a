"""The head of the terminal view: each figure as it reads now, with the last minute as a small bar chart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from promgun.status.history import Point
from promgun.terminal.top import figures
from promgun.terminal.top.figures import Glyphs, bars, pieces
from promgun.terminal.top.table import Line, fit
from promgun.terminal.top.view import View

#: Cells of a figure's name.
LABEL = 10
_VALUE = 13
#: A bar a second is as fine as a chart gets.
_MOST_PIECES = 60
_TWO_COLUMNS = 60
_GAP = "  "
_LEAST_PERCENT = 0.01


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the head: its name, how it reads now, what its chart shows, and the value of a full bar at least."""

    label: str
    text: Callable[[View], str]
    read: Callable[[Point], float | None]
    role: Callable[[View], str] = lambda _view: "value"
    ceiling: float = 0.0


def _of_interval(view: View, name: str) -> float | None:
    value = getattr(view.interval, name) if view.interval is not None else None
    return None if value is None else float(value)


def _quantile(name: str) -> Callable[[View], str]:
    def text(view: View) -> str:
        value = _of_interval(view, name)
        beyond = value is not None and value == _of_interval(view, "longest_bound")
        return f"> {figures.seconds_text(value)}" if beyond else figures.seconds_text(value)

    return text


def _queue(view: View) -> str:
    queues = view.snapshot.queues
    if not queues:
        return figures.NOTHING
    return f"{view.snapshot.waiting} of {sum(queue.limit for queue in queues)}"


def _alarm(name: str, warn: float, bad: float) -> Callable[[View], str]:
    def role(view: View) -> str:
        value = _of_interval(view, name) or 0.0
        return "bad" if value >= bad else "warn" if value >= warn else "value"

    return role


_LATENCIES = tuple(Figure(name, _quantile(name), attrgetter(name)) for name in ("p50", "p95", "p99"))
LEFT = (
    Figure(
        "requests",
        lambda view: f"{figures.rate(_of_interval(view, 'requests_per_second'))} /s",
        lambda point: point.requests_per_second,
    ),
    Figure(
        "errors",
        lambda view: figures.share(_of_interval(view, "error_share")),
        lambda point: point.error_share,
        _alarm("error_share", 1e-9, 0.01),
        _LEAST_PERCENT,
    ),
    Figure(
        "utilised",
        lambda view: figures.share(_of_interval(view, "utilisation")),
        lambda point: point.utilisation,
        _alarm("utilisation", 0.8, 0.95),
        1.0,
    ),
    Figure("queue", _queue, lambda point: point.queue, ceiling=1),
)
RIGHT = (
    *_LATENCIES,
    Figure(
        "in use",
        lambda view: f"{view.snapshot.in_progress} of {view.snapshot.capacity}",
        lambda point: point.in_progress,
        ceiling=1,
    ),
)
WORKERS = Figure("workers", lambda _view: "", lambda point: point.workers, ceiling=1)


def head_lines(view: View, width: int, glyphs: Glyphs) -> list[Line]:
    """Workers by state, then the figures: two beside each other where there is room."""
    if width < _TWO_COLUMNS:
        chart = max(0, width - LABEL - _VALUE)
        lines = [_workers(view, width, 0, 0, glyphs)]
        return lines + [_figure(view, figure, min(_MOST_PIECES, chart), width, glyphs) for figure in (*LEFT, *RIGHT)]
    half = (width - len(_GAP)) // 2
    chart = min(_MOST_PIECES, half - LABEL - _VALUE)
    lines = [_workers(view, width, chart, half + len(_GAP) + LABEL + _VALUE, glyphs)]
    return lines + [
        [*_figure(view, left, chart, half, glyphs), (_GAP, "plain"), *_figure(view, right, chart, half, glyphs)]
        for left, right in zip(LEFT, RIGHT, strict=True)
    ]


def _figure(view: View, figure: Figure, chart: int, width: int, glyphs: Glyphs) -> Line:
    text = figure.text(view).replace(figures.NOTHING, glyphs.nothing)
    drawn = _chart(view, figure, chart, glyphs)
    return [
        (fit(figure.label, min(LABEL, width), glyphs), "label"),
        (fit(text, max(0, min(_VALUE, width - LABEL)), glyphs), figure.role(view)),
        (fit(drawn, max(0, width - LABEL - _VALUE), glyphs), "chart"),
    ]


def _chart(view: View, figure: Figure, width: int, glyphs: Glyphs) -> str:
    if not width or not view.points:
        return ""
    values = pieces(view.points, figure.read, width, view.window, view.snapshot.at)
    # the three latencies share a scale, so that their charts compare
    read = RIGHT[2].read if figure in _LATENCIES else figure.read
    most = max((value for point in view.points if (value := read(point)) is not None), default=0.0)
    return bars(values, max(figure.ceiling, most), glyphs)


def _workers(view: View, width: int, chart: int, chart_at: int, glyphs: Glyphs) -> Line:
    """Workers by state over the width of both columns, the chart under those of the right one."""
    states = view.snapshot.states
    counted = ", ".join(f"{states[state]} {state}" for state in sorted(states)) or "none alive"
    text = f"{len(view.snapshot.workers)} of {view.snapshot.target}: {counted}"
    missing = len(view.snapshot.workers) < view.snapshot.target
    role = "bad" if "hung" in states else "warn" if missing else "value"
    room = max(0, (chart_at or width) - LABEL)
    return [
        (fit(WORKERS.label, min(LABEL, width), glyphs), "label"),
        (fit(text, room, glyphs), role),
        (fit(_chart(view, WORKERS, chart, glyphs), chart, glyphs), "chart"),
    ]
