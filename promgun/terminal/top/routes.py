"""The table of routes in the terminal view: the first ones by the chosen order, and one line for all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from promgun.status import texts
from promgun.status.routes import RouteInterval, ranked, route_texts, summed
from promgun.terminal.output import printable
from promgun.terminal.top.charts import Glyphs
from promgun.terminal.top.layout import Column, Line, join, lay, rest_line

_LEAST_ROUTE = 12
#: With no screen to fit, as many routes as these are shown one by one.
_MOST = 50
_Texts = dict[str, str]


def _cell(name: str) -> Callable[[_Texts], str]:
    return lambda row: row[name]


#: Cells are texts already: a row is what :func:`route_texts` returns.
COLUMNS: tuple[Column[_Texts], ...] = (
    Column("ROUTE", _LEAST_ROUTE, 0, _cell("route"), right=False, flexible=True),
    Column("REQ/S", 6, 0, _cell("rate")),
    Column("ERRORS", 6, 2, _cell("errors")),
    Column("P50", 12, 4, _cell("p50")),
    Column("P95", 12, 1, _cell("p95")),
    Column("BUSY", 6, 0, _cell("busy")),
    Column("CPU", 5, 3, _cell("cpu")),
)


def routes_table(
    routes: Sequence[RouteInterval], order: str, width: int | None, height: int | None, glyphs: Glyphs
) -> Iterator[Line]:
    """Yield the heading and the routes in at most ``height`` lines; ``None`` is 50 routes, or as many cells as needed.

    Only those that are shown are made into text. The others are summed up in the last line.
    """
    if height is not None and height < 2:  # noqa: PLR2004 - a heading without a row says nothing
        return
    most = _MOST if height is None else height - 1
    shown = ranked(routes, order, most if len(routes) <= most else max(0, most - 1))
    rows = [_texts(route, glyphs) for route in shown]
    if len(shown) < len(routes):
        names = {route.route for route in shown}
        rows.append(_texts(summed([route for route in routes if route.route not in names]), glyphs))
    cells = [[printable(column.cell(row)) for column in COLUMNS] for row in rows]
    laid = lay(COLUMNS, cells, width)
    yield [(join([column.heading for column in COLUMNS], laid, glyphs), "heading")]
    for route, row in zip(shown, cells, strict=False):
        yield [(join(row, laid, glyphs), "plain" if route.requests else "quiet")]
    if len(shown) < len(routes):
        yield rest_line(f"{glyphs.cut} {len(routes) - len(shown)} more", ["", *cells[-1][1:]], laid, glyphs)


def _texts(route: RouteInterval, glyphs: Glyphs) -> _Texts:
    return {name: text.replace(texts.NOTHING, glyphs.nothing) for name, text in route_texts(route).items()}
