"""How tables of the terminal view are laid out: columns that fit, one of which takes what the others leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.cells import cell_len, set_cell_size

from promgun.terminal.output import printable
from promgun.terminal.top.charts import Glyphs

RowType = TypeVar("RowType")
#: A piece of a line and its role, which decides its colour.
Span = tuple[str, str]
Line = list[Span]


def fit(text: str, width: int, glyphs: Glyphs, *, right: bool = False) -> str:
    """Return ``text``, made printable, in exactly ``width`` cells: padded, or cut with ``…``."""
    text = printable(text)
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + glyphs.cut if width > 0 else ""
    padding = " " * (width - length)
    return padding + text if right else text + padding


@dataclass(frozen=True, slots=True)
class Column(Generic[RowType]):
    """A column: ``cell`` gives the text of a row, ``total`` that of several rows together.

    On a narrow screen columns of the highest ``rank`` are left out first; those of rank 0 always stay. The
    ``flexible`` one gets the room that the others leave.
    """

    heading: str
    width: int
    rank: int
    cell: Callable[[RowType], str]
    total: Callable[[Sequence[RowType]], str] = lambda _rows: ""
    right: bool = True
    flexible: bool = False


#: The columns that are shown: position among a row's cells, column, width.
Laid = Sequence[tuple[int, Column[Any], int]]


def lay(columns: Sequence[Column[Any]], texts: Sequence[Sequence[str]], width: int | None) -> Laid:
    """Choose the columns that fit, and their widths; ``None`` is as wide as needed."""
    laid = [
        (index, column, max([column.width, *(cell_len(cells[index]) for cells in texts)]))
        for index, column in enumerate(columns)
    ]
    if width is None:
        return laid
    laid = [(index, column, column.width if column.flexible else wide) for index, column, wide in laid]
    while _width(laid) > width and any(column.rank for _, column, _ in laid):
        least = max(column.rank for _, column, _ in laid)
        laid = [entry for entry in laid if entry[1].rank != least]
    extra = max(0, width - _width(laid))
    return [(index, column, wide + extra * column.flexible) for index, column, wide in laid]


def _width(laid: Laid) -> int:
    return sum(wide + 1 for _, _, wide in laid) - 1


def join(cells: Sequence[str], laid: Laid, glyphs: Glyphs) -> str:
    """Return the cells of one row as a line."""
    return " ".join(fit(cells[index], wide, glyphs, right=column.right) for index, column, wide in laid)


def rest_line(label: str, cells: Sequence[str], laid: Laid, glyphs: Glyphs) -> Line:
    """Return the line of several rows together, with ``label`` at its beginning."""
    line = join(cells, laid, glyphs)
    return [(label + line[len(label) :], "label")]
