"""The scoreboard: what the owner of a slot is doing, readable by any process at any moment, also after SIGKILL.

A board is the beginning of a slot's file: 64-bit signed cells at fixed places, times in nanoseconds of
``CLOCK_MONOTONIC``, which on Linux all processes share. Every cell has one writer. Readers use ``pread`` and never map.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from promgun.store import request_table
from promgun.store.request_table import BUSY, FIRST, LAST, START, STEP, RunningRequest, RunningRequests, read_running
from promgun.system.procfs import process_start

VERSION = 7
#: Bytes of a board: its cells, then the regions of running requests. Rows follow at once, in the same page.
SIZE = request_table.END
_CELL = 8


class Role(IntEnum):
    """What kind of process owns a slot."""

    NONE = 0
    MASTER = 1
    WORKER = 2
    OTHER = 3


class Cell(IntEnum):
    """The cells of a board, by index."""

    MAGIC = 0
    PID = 1
    #: start of the process in clock ticks since boot (/proc/PID/stat, field 22): two processes of one pid differ
    PROCESS_START = 2
    ROLE = 3
    AGE = 4
    CLAIMED = 5
    BOOTED = 6
    DRAINING = 7
    HEARTBEAT = 8
    TIMEOUT = 9
    CAPACITY = 10
    SERVED = 11
    MAX_REQUESTS = 12
    TARGET = 13
    #: running requests for which the request table has no room (it records 64 of a worker one by one)
    BEYOND_TABLE = 14
    #: sum of the ends minus sum of the starts of such requests since the slot was taken: with BEYOND_TABLE and the
    #: current time it gives their busy nanoseconds, running requests included
    BEYOND_TABLE_BALANCE = 15
    #: counted up before and after each change of the two above: unequal meanwhile, and while a new owner folds the slot
    WRITES_BEGUN = 16
    WRITES_ENDED = 17
    EXIT_HINT = 18  #: why the worker ends, as the worker itself says
    #: only the process itself can read these once it has changed its user (proc(5), "dumpable"), so it reports them
    OPEN_FDS = 19
    UNIQUE_MEMORY = 20
    OWN_CPU_USER = 21  #: CPU nanoseconds that a master has used: folded when the next master takes the slot
    OWN_CPU_SYSTEM = 22
    #: requests of BEYOND_TABLE that are counted; lowered after it, so that a kill in between has none counted twice
    BEYOND_TABLE_ANSWERED = 23
    WEBSOCKETS = 24  #: open ones, plus 1; 0 where the worker's class has none, under WSGI until the first
    LOOP_DUE = 25  #: when the next step of an event loop is due; 0 where none is
    #: number of a ``LAG_WINDOW`` plus 1 (0: no loop); the most that the loop was late in it, and in the one before
    LOOP_WINDOW = 26
    LOOP_LARGEST = 27
    LOOP_LARGEST_BEFORE = 28
    # What follows belongs to the slot and outlives its owners.
    BUSY_BASE = 32
    ERRORS_NO_SPACE = 33
    ERRORS_CORRUPT = 34
    ERRORS_PERMISSION = 35
    CPU_USER_BASE = 36
    CPU_SYSTEM_BASE = 37
    SWITCHES_VOLUNTARY_BASE = 38
    SWITCHES_INVOLUNTARY_BASE = 39
    GC_COLLECTIONS_0 = 40
    GC_COLLECTIONS_1 = 41
    GC_COLLECTIONS_2 = 42
    GC_PAUSE = 43
    LAST_RELOAD = 44  #: Unix seconds
    #: 1 once a worker has owned the slot: its counters are shown from then on
    WORKED = 45
    #: nanoseconds for which the slot's owners were ready to run but given no CPU, as they reported it
    CPU_WAIT = 46
    ERRORS_VANISHED = 47
    #: random at first: tells a file from one made anew, and from itself before a row got other values
    EDITION = 48
    LOOP_LATE = 50  #: nanoseconds by which event loops were late, plus 1; 0 where no owner had one
    FOLDING_BUSY = 49  #: while a new owner folds the slot, its busy nanoseconds in place of all other cells; else 0


class ExitHint(IntEnum):
    """What a worker writes before it ends."""

    NONE = 0
    MAX_REQUESTS = 1
    PARENT_LOST = 2
    SIGNALLED = 3
    CODE_CHANGED = 4
    ABORTED = 5


LAG_WINDOW = 15_000_000_000  #: how late a loop was is shown until the end of the next window
# Plain integers: an enum member costs a class attribute look-up in the request path.
_BEGUN = int(Cell.WRITES_BEGUN)
_ENDED = int(Cell.WRITES_ENDED)
_BALANCE = int(Cell.BEYOND_TABLE_BALANCE)
_BEYOND_TABLE = int(Cell.BEYOND_TABLE)
_FIRST_LASTING = Cell.BUSY_BASE
_CPU_TOTALS = ((Cell.OWN_CPU_USER, Cell.CPU_USER_BASE), (Cell.OWN_CPU_SYSTEM, Cell.CPU_SYSTEM_BASE))
_CELLS = 64
#: An upper bound for every time and count of a slot: a century in nanoseconds.
_HIGHEST = 100 * 366 * 86_400 * 1_000_000_000
_MAGIC = int.from_bytes(b"promgun" + bytes([VERSION]), "little")


class BoardView:
    """A copy of a board at one moment."""

    __slots__ = ("cells", "data", "slot", "taken")

    def __init__(self, slot: int, cells: tuple[int, ...], data: bytes = b"", taken: int = 0) -> None:
        self.slot = slot
        self.cells = cells
        self.data = data
        #: the monotonic clock just before the copy was made: busy time up to then is never too high
        self.taken = taken

    def running(self) -> list[RunningRequest]:
        """Return the requests that were running, oldest first."""
        return sorted(read_running(self.data), key=lambda request: request.start)

    def __getitem__(self, cell: Cell) -> int:
        return self.cells[cell]

    @property
    def consistent(self) -> bool:
        """Whether no change of the request cells was under way when the copy was made."""
        return self.cells[Cell.WRITES_BEGUN] == self.cells[Cell.WRITES_ENDED]

    def busy_ns(self, now_ns: int) -> int:
        """Return the slot's busy nanoseconds up to ``now_ns``, with those of earlier owners and of running requests."""
        # Below 0 is a copy in the middle of a change, or of a process killed there.
        unlisted = max(0, self.cells[_BALANCE] + self.cells[_BEYOND_TABLE] * now_ns)
        listed = request_table.busy_cells(self.data)
        unlisted += sum(listed) + now_ns * request_table.count_running(listed)
        return self.cells[Cell.FOLDING_BUSY] or self.cells[Cell.BUSY_BASE] + unlisted

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

    def having(self, changes: Mapping[Cell, int]) -> BoardView:
        """Return a copy of the board with ``changes`` applied to its cells."""
        cells = list(self.cells)
        for cell, number in changes.items():
            cells[cell] = number
        return BoardView(self.slot, tuple(cells), self.data, self.taken)

    @property
    def in_progress(self) -> int:
        """How many requests were running."""
        return self.cells[_BEYOND_TABLE] + request_table.count_running(request_table.busy_cells(self.data))


def parse_board(slot: int, data: bytes, taken: int = 0) -> BoardView | None:
    """Return the board in ``data``; ``None`` when there is none of this version."""
    if len(data) < _CELLS * _CELL:
        return None
    cells = tuple(memoryview(data[: _CELLS * _CELL]).cast("q"))
    if cells[Cell.MAGIC] != _MAGIC:
        return None
    # Cells that outlive the owners only grow from 0: any other content was not written by promgun.
    lasting = cells[_FIRST_LASTING:]
    if min(lasting) < 0 or max(lasting) > _HIGHEST:
        lasting = tuple(cell if 0 <= cell <= _HIGHEST else 0 for cell in lasting)
    return BoardView(slot, cells[:_FIRST_LASTING] + lasting, data, taken)


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


def monotonic_ns() -> int:
    """Return the clock of all boards."""
    return time.monotonic_ns()
