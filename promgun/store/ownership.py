"""Whether the process that signed a slot's board lives: locks say it too, but somebody may remove their files."""

from __future__ import annotations

from promgun.store import run_reader
from promgun.store.board import BoardView, Cell, Role
from promgun.store.run_directory import RunDirectory
from promgun.store.run_reader import read_board, read_slot_board, read_worker_rows
from promgun.store.worker_table import WorkerRow
from promgun.system.procfs import Usage, read_usage


def has_owner(directory: RunDirectory, slots_fd: int, number: int) -> bool:
    """Whether a slot whose lock is free has an owner: a worker that was not reaped yet, so that its master has not read
    what it left; or a process that lives and whose lock file somebody removed a moment ago.

    If its own file was removed too, a worker is known by what its master wrote.
    """
    view = read_board(slots_fd, number)
    if view is None:
        row = read_worker_rows(directory.own_master.parent).get(number)
        return row is not None and not row.ended and _living(row.pid, row.process_start) is not None
    process = _living(view[Cell.PID], view[Cell.PROCESS_START])
    return process is not None and (view[Cell.ROLE] == Role.WORKER or not process.ended)


def _living(pid: int, start: int) -> Usage | None:
    process = read_usage(pid)
    return process if process is not None and process.start == start else None


def has_ended(run: RunDirectory, number: int) -> bool:
    """Whether a slot's last owner has certainly ended; false where nothing is known of it."""
    view = read_slot_board(run, number)
    return view is not None and run_reader.has_ended(view)


def owner_ended_at(directory: RunDirectory, number: int, row: WorkerRow) -> int:
    """Return when the last owner of a slot that wrote its board ended, on the monotonic clock; 0 if there was none.

    ``row`` is what this master knows of the slot. That owner may have been another master's worker (SIGUSR2), and later
    ones may have ended before they wrote a board. If no master wrote down its end (plain Gunicorn's write nothing), it
    is the owner's last sign of life, as readers have it.
    """
    view = read_slot_board(directory, number)
    if view is None or not view[Cell.PID]:
        return 0
    if not _is_of(row, view):
        row = read_worker_rows(directory.own_master.parent).get(number, row)
    ended = 0
    if _is_of(row, view):
        ended = row.ended
    elif row.forked > view[Cell.CLAIMED]:
        ended = row.owner_ended
    return ended or run_reader.last_sign_of_life(view)


def _is_of(row: WorkerRow, view: BoardView) -> bool:
    return (row.pid, row.process_start) == (view[Cell.PID], view[Cell.PROCESS_START])
