"""Tables for people: drawn by rich on a terminal, plain columns in a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from promgun.exposition.histograms import is_whole, summaries
from promgun.exposition.terminal import Terminal

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Headings of columns of numbers, which stand to the right.
_NUMBERS = frozenset({"PID", "VALUE"})


def draw(columns: Sequence[str], rows: Iterable[Sequence[str]], terminal: Terminal | None = None) -> str:
    """Rows under their headings, for ``terminal`` (a pipe, if none is given)."""
    terminal = terminal or Terminal()
    table = Table(box=box.SIMPLE_HEAD if terminal.interactive else None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left", overflow="fold")
    for row in rows:
        # Text, not str: rich would read [brackets] in a label as its markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=terminal.width,
        force_terminal=terminal.color,
        no_color=not terminal.color,
        legacy_windows=False,
    )
    console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def printable(cell: str) -> str:
    """``cell`` with control characters spelt out: a label's value must not drive the reader's terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cell)


def metrics_table(families: Iterable[Metric], terminal: Terminal | None = None) -> str:
    """One row a sample; a histogram is one row a label set, with count, mean, and the bounds of half and of 99 %."""
    rows: list[tuple[str, str, str]] = []
    for family in families:
        if is_whole(family):
            rows += [(family.name, labels_text(labels), str(summary)) for labels, summary in summaries(family)]
        else:
            rows += [(sample.name, labels_text(sample.labels), f"{sample.value:.10g}") for sample in family.samples]
    return draw(("METRIC", "LABELS", "VALUE"), rows, terminal)


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels as one reads them: ``method=GET status=200``."""
    return " ".join(f"{name}={value}" if value else f'{name}=""' for name, value in sorted(labels.items()))
