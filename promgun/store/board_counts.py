"""Counts in cells of a board that others may have overwritten: a number that cannot be right never raises."""

from __future__ import annotations

from typing import Any

from promgun.store.board import Cell

_MOST = (1 << 62) - 1


def count(cells: Any, cell: int, amount: int = 1) -> None:
    """Add to a counter; one that cannot be right stays as it is until the slot's next owner resets it."""
    before = cells[cell]
    if 0 <= before < _MOST:
        cells[cell] = before + amount


def renew(cells: Any) -> None:
    """Have readers read all rows of the file again."""
    cells[Cell.EDITION] = (cells[Cell.EDITION] + 1) & _MOST
