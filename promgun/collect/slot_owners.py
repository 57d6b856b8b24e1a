"""The owners of a store's slots at a moment: masters and workers, whether they live, and what state they are in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from pathlib import Path
from typing import NamedTuple

from promgun.collect.processes import Figures
from promgun.metrics.late_label_values import WorkerState
from promgun.store.board import LAG_WINDOW, BoardView, Cell, Role
from promgun.store.request_table import Phase, RunningRequest
from promgun.store.run_reader import is_alive, read_board_of, read_views
from promgun.system.procfs import HAS_PROC, Usage, read_usage

_NS = 1e9
# Plain integers: a page looks at these cells of every worker, and to find an enum's member takes an attribute look-up.
_PID, _PROCESS_START, _ROLE = int(Cell.PID), int(Cell.PROCESS_START), int(Cell.ROLE)
_BOOTED, _TIMEOUT, _HEARTBEAT = int(Cell.BOOTED), int(Cell.TIMEOUT), int(Cell.HEARTBEAT)
_DRAINING, _WORKED = int(Cell.DRAINING), int(Cell.WORKED)
_MASTER, _WORKER = int(Role.MASTER), int(Role.WORKER)
#: Reads the figures of a process; ``None`` for one that is gone.
ReadFigures = Callable[[int, Usage | None], Figures | None]
#: Reads what a process has used; ``None`` for one that is gone.
ReadUsage = Callable[[int], Usage | None]


class SlotOwner(NamedTuple):
    """The process that owns a slot, or owned it last: a copy of its board, and its figures where they were read."""

    board: BoardView
    alive: bool
    figures: Figures | None = None

    @property
    def slot(self) -> int:
        """The number of the slot; of a worker it is the ``worker_id``."""
        return self.board.slot

    @property
    def is_master(self) -> bool:
        """Whether it is a living master."""
        return self.alive and self.board.cells[_ROLE] == _MASTER

    @property
    def was_worker(self) -> bool:
        """Whether it is a worker, living or not."""
        return self.board.cells[_ROLE] == _WORKER

    @property
    def is_worker(self) -> bool:
        """Whether it is a living worker."""
        return self.alive and self.board.cells[_ROLE] == _WORKER

    @property
    def has_booted(self) -> bool:
        """Whether it is ready to serve."""
        return self.board[Cell.BOOTED] > 0

    def uptime(self, now_ns: int) -> float:
        """Seconds since it claimed the slot."""
        return (now_ns - self.board[Cell.CLAIMED]) / _NS

    def heartbeat_age(self, now_ns: int) -> float:
        """Seconds since its last heartbeat, never below 0."""
        return max(0, now_ns - self.board[Cell.HEARTBEAT]) / _NS

    @property
    def requests_left(self) -> int | None:
        """Requests until ``--max-requests`` recycles the worker, ``None`` without the option."""
        limit = self.board[Cell.MAX_REQUESTS]
        return max(0, limit - self.board[Cell.SERVED]) if limit else None

    @staticmethod
    def oldest_request(running: list[RunningRequest], now_ns: int) -> float:
        """Age in seconds of the first of ``running`` that the application has been given; 0 when there is none."""
        return next((request.age(now_ns) for request in running if request.phase >= Phase.APPLICATION), 0.0)


def worker_state(board: BoardView, now_ns: int, *, serves: bool | None = None) -> WorkerState:
    """Return the state of a worker; it is hung after half of ``Cell.TIMEOUT`` without a heartbeat.

    ``serves`` is whether requests are in progress, for a caller that has looked already.
    """
    cells = board.cells
    if not cells[_BOOTED]:
        return WorkerState.BOOTING
    timeout = cells[_TIMEOUT]
    if timeout and now_ns - cells[_HEARTBEAT] > timeout // 2:
        return WorkerState.HUNG
    if cells[_DRAINING]:
        return WorkerState.DRAINING
    if serves is None:
        serves = board.in_progress > 0
    return WorkerState.BUSY if serves else WorkerState.IDLE


def loop_lag(board: BoardView, now_ns: int) -> float | None:
    """Return the most seconds that a worker's event loop was late in this window and the one before, or is late now;
    ``None`` where it has no loop.
    """
    window, now = board[Cell.LOOP_WINDOW], now_ns // LAG_WINDOW + 1
    if not window:
        return None
    largest = 0
    if window == now:
        largest = max(board[Cell.LOOP_LARGEST], board[Cell.LOOP_LARGEST_BEFORE])
    elif window == now - 1:
        largest = board[Cell.LOOP_LARGEST]
    due = 0 if board[Cell.DRAINING] else board[Cell.LOOP_DUE]
    late = now_ns - due if due else 0
    return max(largest, late, 0) / _NS


def owners_of(
    store: Path,
    figures: ReadFigures = lambda _pid, _usage: None,
    last: MutableMapping[int, BoardView] | None = None,
    views: Iterable[BoardView] | None = None,
    usage: ReadUsage = read_usage,
) -> tuple[SlotOwner, ...]:
    """Return the owners of all slots in order, with their figures, all of one moment; empty where there is no store.

    A worker that went between the copy of its board and the look at its process is looked up again: its master adds
    to the board what it used before it is reaped. ``last`` remembers boards by slot: one whose file somebody removed
    goes on as it was read last, until its owner has made the file again. ``views`` are the boards, if they have been
    read.
    """
    found = []
    boards = {board.slot: board for board in (read_views(store) if views is None else views)}
    if last is not None and boards:
        boards = {**last, **boards}
        last.update(boards)
    for _, board in sorted(boards.items()):
        owner = _owner(board, figures, usage)
        if owner.figures is None and board.cells[_PID] > 0 and board.cells[_WORKED]:
            again = read_board_of(store, board.slot)
            if again is not None and again[Cell.PID] != board[Cell.PID]:
                owner = _owner(again, figures, usage)
        found.append(owner)
    return tuple(found)


def living_owners(store: Path) -> tuple[SlotOwner, ...]:
    """Return the owners that live, without figures: enough for readiness, and cheap enough for an event loop."""
    return tuple(owner for owner in (SlotOwner(board, is_alive(board)) for board in read_views(store)) if owner.alive)


def _owner(board: BoardView, figures: ReadFigures, read: ReadUsage) -> SlotOwner:
    pid = board.cells[_PID]
    if pid <= 0:
        return SlotOwner(board, alive=False)
    if not HAS_PROC:
        return SlotOwner(board, is_alive(board), figures(pid, None))
    usage = read(pid)
    if usage is None or usage.start != board.cells[_PROCESS_START]:
        return SlotOwner(board, alive=False)
    return SlotOwner(board, not usage.ended, figures(pid, usage))
