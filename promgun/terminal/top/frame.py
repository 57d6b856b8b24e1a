"""Draws one frame of the terminal view: turns a view into lines of text, none wider than the screen."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.cells import cell_len

from promgun.status.texts import duration
from promgun.terminal.top.charts import Glyphs
from promgun.terminal.top.head import LABEL, head_lines
from promgun.terminal.top.layout import Line, fit
from promgun.terminal.top.routes import routes_table
from promgun.terminal.top.table import table
from promgun.terminal.top.view import Controls, View

#: Lines that exits get, heading included, even if rows of the tables are left out for them: (lines for all, lines for
#: exits); the second row where there are routes.
_EXIT_LINES = (((12, 4), (8, 1)), ((20, 4), (8, 1)))
#: Lines for both tables from which both are shown.
_BOTH_TABLES = 7
_PROGRAM = "promgun top  "
#: Columns of the head in a pipe.
_PIPE = 100


def frame(view: View, controls: Controls, width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """Return the lines of a screen of this size: head, workers, last exits, keys."""
    top = [*_banner(view, controls, width, glyphs), *head_lines(view, width, glyphs)]
    rows = view.rows(controls.order)
    left = height - len(top) - 1
    needed = len(rows) + (len(view.routes) + 2 if view.routes else 0)
    spare = left - needed - 3
    granted = next((lines for least, lines in _EXIT_LINES[bool(view.routes)] if left >= least), 0)
    exits = list(_exits(view, width, glyphs))[: max(spare, granted, 0)]
    room = left - 1 - (len(exits) + 1 if exits else 0)
    lines: list[Line] = [*top, [], *_tables(view, controls, width, room, glyphs)]
    if exits:
        lines += [[], *exits]
    lines += [[] for _ in range(height - 1 - len(lines))]
    return [*lines[: height - 1], _keys(view, controls, width, glyphs)]


def _tables(view: View, controls: Controls, width: int, room: int, glyphs: Glyphs) -> list[Line]:
    """Return the tables of workers and of routes in at most ``room`` lines: each gets what it needs, or half of it."""
    rows, routes = view.rows(controls.order), view.routes
    if not routes or controls.tables == "workers":
        return list(table(rows, width, room, glyphs))
    if controls.tables == "routes":
        return list(routes_table(routes, controls.route_order, width, room, glyphs))
    if room < _BOTH_TABLES:
        return list(table(rows, width, room, glyphs))
    for_routes = min(len(routes) + 1, max(room // 2, room - len(rows) - 2))
    return [
        *table(rows, width, room - for_routes - 1, glyphs),
        [],
        *routes_table(routes, controls.route_order, width, for_routes, glyphs),
    ]


def page(view: View, controls: Controls, width: int | None, glyphs: Glyphs) -> list[Line]:
    """Return the frame of ``--once``: all workers and exits, no charts or keys; without ``width`` as wide as needed."""
    return [
        *_banner(view, controls, width or _PIPE, glyphs),
        *head_lines(view, width or _PIPE, glyphs),
        [],
        *table(view.rows(controls.order), width, None, glyphs),
        [],
        *_routes(view, controls, width, glyphs),
        *_exits(view, width or _PIPE, glyphs),
    ]


def _routes(view: View, controls: Controls, width: int | None, glyphs: Glyphs) -> Iterator[Line]:
    if view.routes:
        yield from routes_table(view.routes, controls.route_order, width, None, glyphs)
        yield []


def _banner(view: View, controls: Controls, width: int, glyphs: Glyphs) -> Iterator[Line]:
    snapshot = view.snapshot
    parts = [
        view.name,
        snapshot.details.application,
        snapshot.info.get("worker_type", ""),
        f"up {duration(snapshot.uptime)}" if snapshot.uptime is not None else "",
    ]
    left = "  ".join(part for part in parts if part)
    state = "PAUSED" if controls.paused else f"every {controls.every:.3g} s"
    right = f"{time.strftime('%H:%M:%S', time.localtime(snapshot.at))}  {state}"
    room = width - cell_len(right) - 2
    if cell_len(_PROGRAM + left) <= room:
        left = _PROGRAM + left
    # On a narrow screen the instance's name stays and the time goes.
    title = f"{fit(left, room, glyphs)}  {right}" if room >= cell_len(view.name) else left
    yield [(fit(title, width, glyphs), "title")]
    if controls.away:
        yield [(fit(controls.away, width, glyphs), "bad")]


def _exits(view: View, width: int, glyphs: Glyphs) -> Iterator[Line]:
    """Yield the exits of workers: how many of each cause (in brackets: while this view ran), then the last ones."""
    counts = {cause: count for cause, count in view.snapshot.exits.items() if count}
    texts = [
        f"{cause} {count}" + (f" (+{view.exits[cause]})" if view.exits.get(cause) else "")
        for cause, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    yield [
        (fit("exits", min(LABEL, width), glyphs), "label"),
        (fit("  ".join(texts) or "none", max(0, width - LABEL), glyphs), "value" if texts else "quiet"),
    ]
    for event in view.events:
        at = time.strftime("%H:%M:%S", time.localtime(event.at))
        times = f" {glyphs.times}{event.count}" if event.count > 1 else ""
        yield [(fit(f"{'':{LABEL}}{at}  {event.cause}{times}", width, glyphs), "plain")]


def _keys(view: View, controls: Controls, width: int, glyphs: Glyphs) -> Line:
    pause = "go on" if controls.paused else "pause"
    text = f"q quit  p {pause}  s sort: {controls.order}  +/- every {controls.every:.3g} s  ? help"
    if view.routes:
        text = (
            f"q quit  p {pause}  s sort: {controls.order}  r routes: {controls.route_order}  t tables  "
            f"+/- {controls.every:.3g} s  ? help"
        )
    return [(fit(text, width, glyphs), "keys")]


HELP = (
    ("promgun metrics top", "title"),
    ("", "plain"),
    ("q        quit                          p   pause the display, and go on", "plain"),
    ("s        sort by the next column       ?   this help; another key leaves it", "plain"),
    ("+  -     longer, shorter interval       r   sort routes by the next column", "plain"),
    ("t        both tables, routes, workers", "plain"),
    ("", "plain"),
    ("requests answers a second             errors   share of 5xx among them", "plain"),
    ("utilised share of capacity in use     queue    connections no worker took yet", "plain"),
    ("p50 ...  half (95 %, 99 %) of the last interval's requests took at most this,", "plain"),
    ("         within 5 %; with --url a range, the bounds of the page's bucket", "plain"),
    ("longest  the longest of them          in use   requests, websockets / capacity", "plain"),
    ("Charts show the last minute; a bar is the largest value of its time.", "plain"),
    ("", "plain"),
    ("BUSY     share of the seconds that all requests of the interval took", "plain"),
    ("REQUEST  the oldest running one [its route]; +2: two more are running", "plain"),
    ("AGE      how long it has been running LEFT  requests until --max-requests", "plain"),
    ("LAG      the most that the event loop was late, in the last 15 to 30 s", "plain"),
    ("CPU      100% is one whole CPU        MEM   resident memory", "plain"),
    ("exits    ended workers by cause since the start; (+2): two while you watch", "plain"),
)


def help_frame(width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """Return the lines that explain keys and figures."""
    lines: list[Line] = [[(fit(text, width, glyphs), role)] for text, role in HELP]
    return lines[:height]
