"""Reads copies of all boards of a run, for any process that may open the files; maps nothing, follows no link."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from promgun.store.board import SIZE, BoardView, Cell, Role, monotonic_ns, parse_board
from promgun.store.run_directory import MASTER, SLOTS, RunDirectory
from promgun.store.worker_table import TABLE_SIZE, WorkerRow, parse_worker_table
from promgun.system.procfs import process_start
from promgun.system.safe_open import open_folder, open_regular, read_regular

#: The most digits of a slot's number, and of a master's, in the names of their files.
_SLOT_DIGITS, _MASTER_DIGITS = 6, 3
_TABLE = ".workers"
_ATTEMPTS = 5
_PID = int(Cell.PID)


def slot_of(name: str) -> int | None:
    """Return the number of the slot whose file has this name, ``None`` for other names."""
    return int(name) if name.isdecimal() and name.isascii() and len(name) <= _SLOT_DIGITS else None


def master_of(name: str) -> int | None:
    """Return the number of the master whose file has this name, ``None`` for other names."""
    digits = name.removeprefix("m")
    return slot_of(digits) if digits != name and len(digits) <= _MASTER_DIGITS else None


def master_slot(number: int) -> int:
    """Return the number that stands for a master's board among those of slots: a negative one."""
    return -1 - number


def has_ended(view: BoardView) -> bool:
    """Whether the process that wrote the board has certainly ended; false where nothing is known of it."""
    if not view[Cell.PID]:
        return False
    start = process_start(view[Cell.PID])
    return start == -1 or 0 < start != view[Cell.PROCESS_START]


def joined(view: BoardView, row: WorkerRow | None, has_ended: Callable[[BoardView], bool] = has_ended) -> BoardView:
    """Return a slot's board combined with what masters know of its worker; the masters' word prevails.

    A process that is gone was busy until its last sign of life if no master knows when it ended (plain Gunicorn's write
    no rows). It is the time that the slot's next owner goes by (``store.ownership``), so that nothing sinks then.
    """
    if row is None:
        return _until_its_end(view, has_ended)
    if row.pid == view[Cell.PID]:
        if row.ended:
            view = view.folded(min(view.taken, row.ended))
        elif row.draining:
            view = view.having({Cell.DRAINING: 1})
    elif row.forked > view[Cell.CLAIMED]:
        # The worker was forked and has not opened its file yet, or has ended before it did.
        view = view.folded(min(view.taken, row.owner_ended or last_sign_of_life(view)))
        if not row.ended:
            view = view.having(
                {
                    Cell.PID: row.pid,
                    Cell.PROCESS_START: row.process_start,
                    Cell.ROLE: Role.WORKER,
                    Cell.CLAIMED: row.forked,
                    Cell.HEARTBEAT: row.forked,
                }
            )
    else:
        view = _until_its_end(view, has_ended)
    if not (row.user or row.system or row.voluntary or row.involuntary) and view[Cell.WORKED] >= row.worked:
        return view
    return view.having(
        {
            Cell.CPU_USER_BASE: view[Cell.CPU_USER_BASE] + row.user,
            Cell.CPU_SYSTEM_BASE: view[Cell.CPU_SYSTEM_BASE] + row.system,
            Cell.SWITCHES_VOLUNTARY_BASE: view[Cell.SWITCHES_VOLUNTARY_BASE] + row.voluntary,
            Cell.SWITCHES_INVOLUNTARY_BASE: view[Cell.SWITCHES_INVOLUNTARY_BASE] + row.involuntary,
            Cell.WORKED: view[Cell.WORKED] | row.worked,
        }
    )


def is_alive(view: BoardView) -> bool:
    """Whether the process that wrote the board still runs."""
    pid = view[Cell.PID]
    return pid > 0 and process_start(pid) == view[Cell.PROCESS_START]


def _until_its_end(view: BoardView, has_ended: Callable[[BoardView], bool]) -> BoardView:
    """Return the board of a process of which no master knows anything: folded if the process is gone."""
    is_gone = view.slot >= 0 and view.cells[_PID] > 0 and has_ended(view)
    return view.folded(last_sign_of_life(view)) if is_gone else view


def last_sign_of_life(view: BoardView) -> int:
    """Return when the owner sent its last heartbeat or began its last request, on the monotonic clock, 0 when it did
    neither: a worker of type sync sends no heartbeat while it serves.
    """
    return min(view.taken, max(view[Cell.HEARTBEAT], *(request.start for request in view.running()), 0))


def read_views(run: Path) -> Iterator[BoardView]:
    """Yield every board of a run: masters' first, then slots' in order, each combined with what masters know."""
    rows = read_worker_rows(run)
    for part, number_in in ((MASTER, master_of), (SLOTS, slot_of)):
        try:
            folder_fd = open_folder(run / part)
        except OSError:
            continue
        try:
            for number in sorted(number for number in map(number_in, os.listdir(folder_fd)) if number is not None):
                if part == MASTER:
                    view = _read(folder_fd, f"m{number}", master_slot(number))
                else:
                    view = _read(folder_fd, str(number), number)
                if view is not None:
                    yield joined(view, rows.get(view.slot))
        finally:
            os.close(folder_fd)


def read_board_of(run: Path, slot: int) -> BoardView | None:
    """Return a copy of one board; ``None`` when there is none."""
    part, name = (MASTER, f"m{-1 - slot}") if slot < 0 else (SLOTS, str(slot))
    try:
        folder_fd = open_folder(run / part)
    except OSError:
        return None
    try:
        view = _read(folder_fd, name, slot)
    finally:
        os.close(folder_fd)
    return None if view is None else joined(view, read_worker_rows(run).get(slot))


def read_board(folder_fd: int, slot: int) -> BoardView | None:
    """Return a copy of the board of a slot in its open folder; ``None`` when there is none."""
    return _read(folder_fd, str(slot), slot)


def read_slot_board(directory: RunDirectory, number: int) -> BoardView | None:
    """Return a copy of a slot's board as its owner wrote it; ``None`` when there is none.

    Safe for root: the file is opened in an open directory, through no link, and its content is checked.
    """
    try:
        slots_fd = directory.open_slots()
    except OSError:
        return None
    try:
        return read_board(slots_fd, number)
    finally:
        os.close(slots_fd)


def _read(folder_fd: int, name: str, slot: int) -> BoardView | None:
    try:
        fd = open_regular(folder_fd, name)
    except OSError:
        return None
    try:
        return read_open_board(fd, slot)
    except OSError:
        return None
    finally:
        os.close(fd)


def read_open_board(fd: int, slot: int) -> BoardView | None:
    """Return a copy of the board in an open file, ``None`` when there is none in it; tries a few more times while a
    change of it is under way. Raises ``OSError``.
    """
    view = None
    for _ in range(_ATTEMPTS):
        taken = monotonic_ns()
        view = parse_board(slot, os.pread(fd, SIZE, 0), taken)
        if view is None or view.consistent:
            break
    return view


def read_worker_rows(run: Path) -> dict[int, WorkerRow]:
    """Return what masters know of the workers in their slots.

    Usage is added up over all masters; everything else is from the master that forked last.
    """
    rows: dict[int, WorkerRow] = {}
    try:
        folder_fd = open_folder(run / MASTER)
    except OSError:
        return rows
    try:
        for name in sorted(os.listdir(folder_fd)):
            if name.endswith(_TABLE) and master_of(name.removesuffix(_TABLE)) is not None:
                for slot, row in parse_worker_table(read_regular(folder_fd, name, TABLE_SIZE) or b""):
                    rows[slot] = row.joined(rows[slot]) if slot in rows else row
    finally:
        os.close(folder_fd)
    return rows
