"""The scoreboard: what the owner of a slot is doing, readable by any process at any moment, also after SIGKILL.

A board is the beginning of a slot's file: 64-bit signed cells at fixed places, times in nanoseconds of
``CLOCK_MONOTONIC``, which on Linux all processes share. Every cell has one writer. Readers use ``pread`` and never map.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from struct import Struct
from typing import Any

from promgun.store import request_table
from promgun.store.board_cells import Cell, ExitHint, Role
from promgun.store.request_table import (
    BUSY,
    FIRST,
    LAST,
    START,
    STEP,
    RunningRequest,
    RunningRequests,
    read_running,
    sum_up,
    without_unused,
)
from promgun.system.procfs import process_start

__all__ = ["Board", "BoardView", "Cell", "ExitHint", "Role", "monotonic_ns", "parse_board"]

VERSION = 7
#: Bytes of a board: its cells, then the regions of running requests. Rows follow at once, in the same page.
SIZE = request_table.END
_CELL = 8
LAG_WINDOW = 15_000_000_000  #: how late a loop was is shown until the end of the next window
# Plain integers: an enum member costs a class attribute look-up in the request path.
_BEGUN = int(Cell.WRITES_BEGUN)
_ENDED = int(Cell.WRITES_ENDED)
_BALANCE = int(Cell.BEYOND_TABLE_BALANCE)
_BEYOND_TABLE = int(Cell.BEYOND_TABLE)
_FIRST_LASTING = int(Cell.BUSY_BASE)
_BUSY_BASE = int(Cell.BUSY_BASE)
_FOLDING_BUSY = int(Cell.FOLDING_BUSY)
_CPU_TOTALS = ((Cell.OWN_CPU_USER, Cell.CPU_USER_BASE), (Cell.OWN_CPU_SYSTEM, Cell.CPU_SYSTEM_BASE))
_CELLS = 64
_cells_of = Struct(f"={_CELLS}q").unpack_from
#: An upper bound for every time and count of a slot: a century in nanoseconds.
_HIGHEST = 100 * 366 * 86_400 * 1_000_000_000
_MOST_COUNTED = (1 << 62) - 1
_MAGIC = int.from_bytes(b"promgun" + bytes([VERSION]), "little")


class BoardView:
    """A copy of a board at one moment."""

    __slots__ = ("_listed", "cells", "data", "slot", "taken")

    def __init__(self, slot: int, cells: tuple[int, ...], data: bytes = b"", taken: int = 0) -> None:
        self.slot = slot
        self.cells = cells
        self.data = data
        #: the monotonic clock just before the copy was made: busy time up to then is never too high
        self.taken = taken
        self._listed: tuple[int, int, bool] | None = None

    def _sum_up(self) -> tuple[int, int, bool]:
        """Return what :func:`sum_up` does, of the first call."""
        listed = self._listed
        if listed is None:
            listed = self._listed = sum_up(self.data)
        return listed

    def running(self) -> list[RunningRequest]:
        """Return the requests that were running, oldest first."""
        # Most workers serve nothing at this moment.
        may_be_some = (self._listed or self._sum_up())[2]
        return sorted(read_running(self.data), key=lambda request: request.start) if may_be_some else []

    def __getitem__(self, cell: int) -> int:
        return self.cells[cell]

    @property
    def consistent(self) -> bool:
        """Whether no change of the request cells was under way when the copy was made."""
        return self.cells[_BEGUN] == self.cells[_ENDED]

    def busy_ns(self, now_ns: int) -> int:
        """Return the slot's busy nanoseconds up to ``now_ns``, with those of earlier owners and of running requests."""
        # Below 0 is a copy in the middle of a change, or of a process killed there.
        cells = self.cells
        unlisted = max(0, cells[_BALANCE] + cells[_BEYOND_TABLE] * now_ns)
        busy, running, _ = self._listed or self._sum_up()
        unlisted += busy + now_ns * running
        return cells[_FOLDING_BUSY] or cells[_BUSY_BASE] + unlisted

    def busy_total(self, ended_ns: int) -> int:
        """Return the busy nanoseconds that the next owner begins with; the last one's are left out if not plausible."""
        base, busy = self.cells[Cell.BUSY_BASE], self.busy_ns(ended_ns)
        return busy if 0 <= base <= busy <= _HIGHEST else base if 0 <= base <= _HIGHEST else 0

    def folded(self, ended_ns: int) -> BoardView:
        """Return the board as its next owner will find it: nothing runs, busy time ends with the last owner."""
        cells = list(self.cells)
        cells[Cell.BUSY_BASE], cells[Cell.FOLDING_BUSY] = self.busy_total(ended_ns), 0
        cells[Cell.PID : _FIRST_LASTING] = [0] * (_FIRST_LASTING - Cell.PID)
        return BoardView(self.slot, tuple(cells), b"", self.taken)

    def having(self, changes: Mapping[int, int]) -> BoardView:
        """Return a copy of the board with ``changes`` applied to its cells."""
        cells = list(self.cells)
        for cell, number in changes.items():
            cells[cell] = number
        return BoardView(self.slot, tuple(cells), self.data, self.taken)

    @property
    def in_progress(self) -> int:
        """How many requests were running."""
        return self.cells[_BEYOND_TABLE] + (self._listed or self._sum_up())[1]


def parse_board(slot: int, data: bytes, taken: int = 0) -> BoardView | None:
    """Return the board in ``data``; ``None`` when there is none of this version."""
    if len(data) < _CELLS * _CELL:
        return None
    cells = _cells_of(data)
    if cells[0] != _MAGIC:
        return None
    # Cells that outlive the owners only grow from 0: any other content was not written by promgun.
    lasting = cells[_FIRST_LASTING:]
    if min(lasting) < 0 or max(lasting) > _HIGHEST:
        cells = cells[:_FIRST_LASTING] + tuple(cell if 0 <= cell <= _HIGHEST else 0 for cell in lasting)
    return BoardView(slot, cells, without_unused(data), taken)


class Board:
    """The board of a slot as its owner writes it.

    ``cells`` is int64 memory: private at first, then the file's (:meth:`move_into`).
    """

    def __init__(self) -> None:
        self.shared = False
        self.cells = memoryview(bytearray(SIZE)).cast("q")
        self.cells[Cell.MAGIC] = _MAGIC
        self.requests = RunningRequests(self.cells)

    def move_into(self, memory: memoryview, owner_ended_ns: int) -> None:
        """Move into the file's memory, whose last owner ended at ``owner_ended_ns`` at the latest. That owner's busy
        time is added to the slot's, its running requests are cleared, and errors counted in private memory are added.
        """
        cells = memory.cast("q")
        private = self.cells
        if cells[Cell.MAGIC] != _MAGIC:
            cells[:] = memoryview(bytes(SIZE)).cast("q")
            cells[Cell.MAGIC] = _MAGIC
            cells[Cell.EDITION] = int.from_bytes(os.urandom(7), "little")
        fold_owner(cells, owner_ended_ns)
        copied = list(private[:_CELLS])
        # BEYOND_TABLE after its balance, as in enter(): busy time is never told too high.
        for cell in reversed(range(Cell.PID, _FIRST_LASTING)):
            cells[cell] = copied[cell]
        for cell in range(_FIRST_LASTING, _CELLS):
            cells[cell] += copied[cell]
        self.cells = cells
        self.requests.move(cells)
        self.shared = True
        # Add what other threads wrote to the private board while it was being copied.
        for cell in (_BALANCE, _BEYOND_TABLE, _BEGUN, _ENDED):
            cells[cell] += private[cell] - copied[cell]

    # The stores below are so ordered that a process killed between two of them leaves counts too low, never too high.

    def enter(self, now_ns: int) -> None:
        """Record the start of a request for which there is no free region."""
        cells = self.cells
        cells[_BEGUN] += 1
        cells[_BALANCE] -= now_ns
        cells[_BEYOND_TABLE] += 1
        cells[_ENDED] += 1

    def leave(self, now_ns: int) -> None:
        """Record the end of such a request."""
        cells = self.cells
        cells[_BEGUN] += 1
        cells[_BEYOND_TABLE] -= 1
        cells[_BALANCE] += now_ns
        cells[_ENDED] += 1

    def view(self, slot: int) -> BoardView:
        """Return a copy of the board, as a reader would see it."""
        return BoardView(slot, tuple(self.cells[:_CELLS]), bytes(self.cells))

    def occupy(self, role: Role, now_ns: int) -> None:
        """Record that this process owns the slot."""
        cells = self.cells
        pid = os.getpid()
        cells[Cell.PROCESS_START] = process_start(pid)
        cells[Cell.CLAIMED] = now_ns
        cells[Cell.HEARTBEAT] = now_ns
        cells[Cell.ROLE] = role
        if role == Role.WORKER:
            cells[Cell.WORKED] = 1
        elif role == Role.MASTER:
            # The time of the last reload is the master's own, although its cell is one of those that outlive an owner.
            cells[Cell.LAST_RELOAD] = 0
        cells[Cell.PID] = pid


def fold_owner(cells: Any, ended_ns: int) -> None:
    """Fold the last owner's busy time into the slot's total, up to its end, and clear its running requests.

    Numbers that cannot be right are reset and counted as corrupt.
    """
    # Readers see a change under way, and one total, which the next owner takes over if this one is killed meanwhile.
    cells[_BEGUN] = cells[_ENDED] = 0
    cells[_BEGUN] = 1
    busy = BoardView(0, tuple(cells[:_CELLS]), bytes(cells)).busy_total(ended_ns)
    cells[Cell.FOLDING_BUSY] = busy
    for region in range(FIRST, LAST, STEP):
        cells[region + BUSY] = 0
        cells[region + START] = 0
    for own, total in _CPU_TOTALS:
        cells[total] += cells[own] if max(cells[own], cells[total], -cells[own]) <= _HIGHEST else 0
    for cell in range(Cell.PID, _FIRST_LASTING):
        if cell not in {_BEGUN, _ENDED}:
            cells[cell] = 0
    corrupt = 0
    for cell in range(_FIRST_LASTING, _CELLS):
        if not 0 <= cells[cell] <= _HIGHEST:
            cells[cell] = 0
            corrupt = 1
    cells[Cell.BUSY_BASE] = busy
    cells[Cell.FOLDING_BUSY] = 0
    cells[Cell.ERRORS_CORRUPT] += corrupt
    cells[_BEGUN] = 0


def count(cells: Any, cell: int, amount: int = 1) -> None:
    """Add to a counter; one that cannot be right stays as it is until the slot's next owner resets it."""
    before = cells[cell]
    if 0 <= before < _MOST_COUNTED:
        cells[cell] = before + amount


def renew(cells: Any) -> None:
    """Have readers read all rows of the file again."""
    cells[Cell.EDITION] = (cells[Cell.EDITION] + 1) & _MOST_COUNTED


def monotonic_ns() -> int:
    """Return the clock of all boards."""
    return time.monotonic_ns()
