"""Tables for people: drawn by rich on a terminal, plain columns in a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from promgun.status.routes import RouteInterval, ranked, route_texts, summed, worth_a_table
from promgun.status.texts import NOTHING, latency
from promgun.terminal.histograms import has_all_parts, summaries
from promgun.terminal.output import Output, printable

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Headings of columns of numbers, which are aligned to the right.
_NUMBERS = frozenset({"PID", "VALUE", "REQUESTS", "ERRORS", "P50", "P95", "BUSY", "CPU"})
#: The most routes that a table shows one by one.
_MOST_ROUTES = 50
#: Columns between two cells of a table on a terminal.
_GAP = 3


def draw(columns: Sequence[str], rows: Iterable[Sequence[str]], output: Output | None = None) -> str:
    """Return ``rows`` under their headings, laid out for ``output`` (by default a pipe)."""
    output = output or Output()
    table = Table(box=box.SIMPLE_HEAD if output.interactive else None, pad_edge=False, header_style="bold")
    # Text, not str: rich would read [brackets] in a label as its markup.
    cells = [[Text(printable(cell)) for cell in row] for row in rows]
    for index, column in enumerate(columns):
        # The first column holds names: they are not folded as long as the others keep half the width, because rich
        # cuts off a cell that it may not fold.
        whole = index == 0 and all(2 * row[0].cell_len <= output.width for row in cells)
        justify: JustifyMethod = "right" if column in _NUMBERS else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*row)
    return _print(table, output)


def draw_records(columns: Sequence[str], rows: Iterable[Sequence[str]], output: Output | None = None) -> str:
    """As :func:`draw`; but on a terminal that is too narrow for the table, a row becomes one line for each cell.

    The table would fold cells there, and a folded address or path cannot be copied in one piece.
    """
    found = [[printable(cell) for cell in row] for row in rows]
    widths = (max(map(cell_len, cells)) for cells in zip(columns, *found, strict=True))
    if output is None or not output.interactive or sum(width + _GAP for width in widths) <= output.width:
        return draw(columns, found, output)
    heading = max(map(cell_len, columns))
    records = (
        Text("\n").join(
            Text.assemble((column, "bold"), " " * (heading + 2 - len(column)), cell)
            for column, cell in zip(columns, row, strict=True)
        )
        for row in found
    )
    return _print(Text("\n\n").join(records), output)


def _print(drawn: Table | Text, output: Output) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=output.width,
        force_terminal=output.color,
        no_color=not output.color,
        legacy_windows=False,
    )
    console.print(drawn, soft_wrap=isinstance(drawn, Text))
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def metrics_table(families: Iterable[Metric], output: Output | None = None) -> str:
    """Return one row for each sample; a histogram has one for each label set: count, mean, median and 99 % bounds."""
    rows: list[tuple[str, str, str]] = []
    for family in families:
        if has_all_parts(family):
            rows += [(family.name, labels_text(labels), str(summary)) for labels, summary in summaries(family)]
        else:
            rows += [(sample.name, labels_text(sample.labels), f"{sample.value:.10g}") for sample in family.samples]
    return draw(("METRIC", "LABELS", "VALUE"), rows, output)


def routes_table(routes: Iterable[RouteInterval], output: Output | None = None) -> str:
    """Return one row for each route, the one whose requests took longest together first, and one for those beyond 50;
    empty if none has a name. The figures are those since the start of the instance.
    """
    found = list(routes)
    if not worth_a_table(found):
        return ""
    shown = ranked(found, "busy", _MOST_ROUTES)
    names = {route.route for route in shown}
    rest = [route for route in found if route.route not in names]
    rows = [_route_cells(route) for route in (*shown, *([summed(rest)] if rest else []))]
    return draw(("ROUTE", "REQUESTS", "ERRORS", "P50", "P95", "BUSY", "CPU"), rows, output)


def _route_cells(route: RouteInterval) -> tuple[str, ...]:
    texts = route_texts(route)
    cpu = NOTHING if route.cpu_share is None else latency(route.cpu_share)
    return (texts["route"], f"{route.requests:.10g}", texts["errors"], texts["p50"], texts["p95"], texts["busy"], cpu)


def labels_text(labels: Mapping[str, str]) -> str:
    """Return labels as text: ``method=GET status=200``."""
    return " ".join(f"{name}={value}" if value else f'{name}=""' for name, value in sorted(labels.items()))
