"""The scoreboard: exact at any instant, and right enough when its writer dies between any two of its stores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promgun.store.board import (
    SIZE,
    Board,
    BoardView,
    Cell,
    Role,
    fold_owner,
    monotonic_ns,
    parse_board,
)
from promgun.store.request_table import REGIONS, Phase
from promgun.store.run_reader import is_alive
from promgun.store.slot_file import SlotFile
from promgun.system.procfs import process_start
from tests.support.boards import begin, finish, occupy

SECOND = 1_000_000_000


class Watched:
    """Cells that show a watcher each state they go through."""

    def __init__(self, cells: Any, watch: Callable[[BoardView], None]) -> None:
        self._cells = cells
        self._watch = watch

    def __getitem__(self, at: Any) -> Any:
        return self._cells[at]

    def __bytes__(self) -> bytes:
        return bytes(self._cells)

    def __setitem__(self, at: Any, value: Any) -> None:
        self._cells[at] = value
        self._watch(BoardView(0, tuple(self._cells[:64]), bytes(self._cells)))


def take(folder: Path, board: Board, role: Role = Role.WORKER, ended_ns: int = 0) -> Board:
    """Move a board into the file of slot 1, as its next owner does; the last one ended at ``ended_ns``, else now."""
    board.move_into(SlotFile(str(folder / "1")).memory[:SIZE], ended_ns or monotonic_ns())
    board.occupy(role, monotonic_ns())
    return board


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return take(tmp_path, Board())


def board_of(folder: Path) -> BoardView:
    view = parse_board(1, (folder / "1").read_bytes()[:SIZE])
    assert view is not None
    return view


def test_a_board_says_who_owns_the_slot(board: Board, tmp_path: Path) -> None:
    view = board_of(tmp_path)
    assert view[Cell.PID] == os.getpid()
    assert view[Cell.ROLE] == Role.WORKER
    assert view[Cell.PROCESS_START] == process_start(os.getpid()) > 0
    assert is_alive(view)
    assert board.shared


def test_the_board_is_really_there(board: Board, tmp_path: Path) -> None:
    """Of the slot's file the rest is a hole."""
    assert board.shared
    assert SIZE <= (tmp_path / "1").stat().st_blocks * 512 < SIZE + (1 << 16)


def crowd(board: Board) -> None:
    """Take every region: the next requests are unlisted."""
    for _ in range(REGIONS):
        occupy(board.requests, 1, Phase.READING)


@pytest.mark.parametrize("kind", ["listed", "unlisted"])
def test_busy_time_is_exact_for_any_overlap(board: Board, kind: str) -> None:
    if kind == "unlisted":
        crowd(board)
    at = 10 * SECOND
    first, second, third = (begin(board, at + start * SECOND) for start in (0, 1, 3))
    assert board.view(0).in_progress == 3
    assert board.cells[Cell.BEYOND_TABLE] == (0 if kind == "listed" else 3)
    assert board.view(0).busy_ns(at + 5 * SECOND) == (5 + 4 + 2) * SECOND
    finish(board, third, at + 6 * SECOND)
    finish(board, first, at + 6 * SECOND)
    assert board.view(0).busy_ns(at + 7 * SECOND) == (6 + 6 + 3) * SECOND
    finish(board, second, at + 8 * SECOND)
    assert board.view(0).busy_ns(at + 99 * SECOND) == (6 + 7 + 3) * SECOND
    assert board.view(0).in_progress == 0
    assert board.view(0).consistent


@pytest.mark.parametrize("kind", ["listed", "unlisted"])
def test_the_books_of_a_dead_owner_are_closed(board: Board, tmp_path: Path, kind: str) -> None:
    if kind == "unlisted":
        crowd(board)
    now = time.monotonic_ns()
    finish(board, begin(board, now - 5 * SECOND), now - 3 * SECOND)
    begin(board, now - SECOND)
    board.cells[Cell.BOOTED] = board.cells[Cell.SERVED] = 7
    board.cells[Cell.ERRORS_NO_SPACE] += 3
    take(tmp_path, Board(), Role.OTHER)
    view = board_of(tmp_path)
    assert 3 * SECOND <= view[Cell.BUSY_BASE] < 60 * SECOND
    assert view.busy_ns(time.monotonic_ns()) == view[Cell.BUSY_BASE]
    assert view.in_progress == 0
    assert [view[cell] for cell in (Cell.BOOTED, Cell.SERVED, Cell.BEYOND_TABLE, Cell.BEYOND_TABLE_BALANCE)] == [0] * 4
    assert not view.running()
    assert view[Cell.ERRORS_NO_SPACE] == 3
    assert view[Cell.ROLE] == Role.OTHER


@pytest.mark.parametrize("kind", ["listed", "unlisted"])
def test_the_dead_were_busy_until_their_end_and_no_longer(board: Board, tmp_path: Path, kind: str) -> None:
    if kind == "unlisted":
        crowd(board)
    now = time.monotonic_ns()
    begin(board, now - 5 * SECOND)
    listed = 0 if kind == "listed" else board_of(tmp_path).busy_ns(now - 2 * SECOND) - 3 * SECOND
    take(tmp_path, Board(), ended_ns=now - 2 * SECOND)
    assert board_of(tmp_path).busy_ns(now) == 3 * SECOND + listed


@pytest.mark.parametrize("kind", ["listed", "unlisted"])
def test_a_death_between_any_two_stores_never_adds_busy_time(board: Board, kind: str) -> None:
    if kind == "unlisted":
        crowd(board)
    cells: Any = board.cells
    now = time.monotonic_ns()
    seen: list[BoardView] = []
    truth = 0

    def die_here(view: BoardView) -> None:
        seen.append(view)
        memory = bytearray(view.data)
        fold_owner(memoryview(memory).cast("q"), now)
        heir = parse_board(1, bytes(memory))
        assert heir is not None
        assert heir.busy_ns(now) <= truth + SECOND
        assert heir.in_progress == 0

    watched: Any = Watched(cells, die_here)
    board.cells = board.requests.cells = watched
    for start in range(5):
        region = begin(board, now - SECOND)
        truth += SECOND
        if start % 2:
            finish(board, region, now)
    fold_owner(watched, now)
    assert len(seen) > 30
    board.cells = cells
    assert board.view(0).busy_ns(now) == truth


@pytest.mark.parametrize("kind", ["listed", "unlisted"])
def test_an_owner_killed_while_it_folds_the_slot_costs_no_busy_time(board: Board, kind: str) -> None:
    """What it has cleared by then was the last owner's; a page that is read meanwhile shows the same."""
    if kind == "unlisted":
        crowd(board)
    now = time.monotonic_ns()
    finish(board, begin(board, now - 9 * SECOND), now - 5 * SECOND)
    begin(board, now - SECOND)
    truth = board.view(0).busy_ns(now)
    assert truth >= 5 * SECOND
    seen = 0

    def die_here(view: BoardView) -> None:
        nonlocal seen
        seen += 1
        assert view.busy_ns(now) == view.folded(now).busy_ns(now) == truth
        memory = bytearray(view.data)
        fold_owner(memoryview(memory).cast("q"), now)
        heir = parse_board(1, bytes(memory))
        assert heir is not None
        assert heir.busy_ns(now) == heir[Cell.BUSY_BASE] == truth

    fold_owner(Watched(board.cells, die_here), now)
    assert seen > 30


def test_a_copy_made_between_two_stores_of_a_listed_request_is_right(board: Board) -> None:
    now = time.monotonic_ns()
    first, _ = begin(board, now - 3 * SECOND), begin(board, now - 2 * SECOND)
    seen: list[int] = []

    def compare(view: BoardView) -> None:
        assert view.consistent
        seen.append(view.busy_ns(now))

    watched: Any = Watched(board.requests.cells, compare)
    board.requests.cells = watched
    third = begin(board, now - SECOND)
    finish(board, first, now)
    finish(board, third, now)
    assert set(seen) == {5 * SECOND, 6 * SECOND}
    assert seen == sorted(seen)


def test_a_copy_made_between_two_stores_is_known_to_be_one(board: Board) -> None:
    cells: Any = board.cells
    now = time.monotonic_ns()
    board.enter(now - 3 * SECOND)
    board.enter(now - 2 * SECOND)
    seen: list[bool] = []

    def compare(view: BoardView) -> None:
        # A reader takes a copy again that is not consistent.
        seen.append(view.consistent)
        assert not view.consistent or view.busy_ns(now) in {5 * SECOND, 6 * SECOND}

    board.cells = Watched(cells, compare)  # type: ignore[assignment] # what cells are for
    board.enter(now - SECOND)
    board.leave(now)
    fold_owner(board.cells, now)
    assert seen.count(False) > 3
    assert seen[-1]
    board.cells = cells


def test_threads_lose_nothing(board: Board) -> None:
    rounds = 20_000

    def serve() -> None:
        for _ in range(rounds):
            board.enter(1000)
            board.leave(1003)

    threads = [threading.Thread(target=serve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    view = board.view(0)
    assert view[Cell.BEYOND_TABLE] == 0
    assert view.busy_ns(5000) == 8 * rounds * 3
    assert view.consistent


# ---- without space


def test_a_private_board_moves_into_the_file(board: Board, tmp_path: Path) -> None:
    board.cells[Cell.ERRORS_CORRUPT] = 2
    board.cells[Cell.BUSY_BASE] = 4 * SECOND
    heir = Board()
    shared = [heir.shared]
    heir.occupy(Role.WORKER, 5)
    heir.enter(1000)
    heir.cells[Cell.BOOTED] = 77
    heir.cells[Cell.ERRORS_CORRUPT] += 3
    take(tmp_path, heir)
    assert [*shared, heir.shared] == [False, True]
    view = board_of(tmp_path)
    assert [view[cell] for cell in (Cell.PID, Cell.BEYOND_TABLE, Cell.BOOTED, Cell.ERRORS_CORRUPT)] == [
        os.getpid(),
        1,
        77,
        5,
    ]
    heir.leave(3000)
    assert board_of(tmp_path).busy_ns(3000) == 4 * SECOND + 2000


@pytest.mark.parametrize("content", [b"", b"x", bytes(SIZE), b"\xff" * SIZE, b"promgun\0" + bytes(5000)])
def test_what_is_no_board_becomes_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1").write_bytes(content)
    assert parse_board(1, content) is None
    heir = Board()
    heir.cells[Cell.ERRORS_CORRUPT] = 3
    take(tmp_path, heir)
    view = board_of(tmp_path)
    assert (view[Cell.PID], view[Cell.ERRORS_CORRUPT], view[Cell.BUSY_BASE]) == (os.getpid(), 3, 0)
    assert view.busy_ns(9 * SECOND) == 0


def test_numbers_that_cannot_be_right_are_reset_and_counted(board: Board, tmp_path: Path) -> None:
    board.cells[Cell.GC_PAUSE] = -5
    board.cells[Cell.ERRORS_NO_SPACE] = 7
    board.cells[Cell.CPU_WAIT] = 1 << 62
    take(tmp_path, Board())
    view = board_of(tmp_path)
    assert [view[cell] for cell in (Cell.GC_PAUSE, Cell.CPU_WAIT, Cell.ERRORS_NO_SPACE)] == [0, 0, 7]
    assert view[Cell.ERRORS_CORRUPT] == 1


def test_a_board_made_anew_is_another_edition(board: Board, tmp_path: Path) -> None:
    edition = board.cells[Cell.EDITION]
    take(tmp_path, Board())
    assert board_of(tmp_path)[Cell.EDITION] == edition > 0
    (tmp_path / "1").unlink()
    take(tmp_path, Board())
    assert board_of(tmp_path)[Cell.EDITION] not in {0, edition}


def test_requests_that_end_while_the_board_moves_are_not_lost(tmp_path: Path) -> None:
    board = Board()
    board.occupy(Role.WORKER, 5)
    board.enter(1000)
    private: Any = board.cells
    moved = board.requests.move

    def move_meanwhile(memory: Any) -> None:
        # A thread that looked the cells up before the move.
        private[Cell.WRITES_BEGUN] += 1
        private[Cell.BEYOND_TABLE] -= 1
        private[Cell.BEYOND_TABLE_BALANCE] += 4000
        private[Cell.WRITES_ENDED] += 1
        moved(memory)

    board.requests.move = move_meanwhile  # type: ignore[method-assign] # to be in the middle of it
    take(tmp_path, board)
    view = board_of(tmp_path)
    assert view[Cell.BEYOND_TABLE] == 0
    assert view.busy_ns(9000) == 3000
    assert view.consistent


def test_a_listed_request_goes_on_when_the_board_moves(tmp_path: Path) -> None:
    board = Board()
    board.occupy(Role.WORKER, 5)
    region = begin(board, 1000, "GET\0\0\0\0/slow")
    take(tmp_path, board)
    assert [request.path for request in board_of(tmp_path).running()] == ["/slow"]
    assert board_of(tmp_path).busy_ns(4000) == 3000
    finish(board, region, 5000)
    assert board_of(tmp_path).busy_ns(9000) == 4000
    assert not board_of(tmp_path).running()


def test_what_the_last_owner_was_doing_is_gone_for_the_next(board: Board, tmp_path: Path) -> None:
    begin(board, time.monotonic_ns() - 2 * SECOND, "GET\0\0\0\0/killed")
    assert [request.path for request in board_of(tmp_path).running()] == ["/killed"]
    heir = take(tmp_path, Board())
    assert heir.cells[Cell.BUSY_BASE] >= 2 * SECOND
    assert not board_of(tmp_path).running()
    assert board_of(tmp_path).in_progress == 0


# ---- alive or not


def view_of(pid: int, start: int) -> BoardView:
    cells = [0] * 64
    cells[Cell.PID], cells[Cell.PROCESS_START] = pid, start
    return BoardView(0, tuple(cells))


def test_the_dead_are_told_from_the_living() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        start = process_start(process.pid)
        assert is_alive(view_of(process.pid, start))
        # the same number, taken by another process later
        assert not is_alive(view_of(process.pid, start - 1))
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(view_of(process.pid, start)), "a zombie"
    assert not is_alive(view_of(process.pid, start))
    assert not is_alive(view_of(0, 0))


def test_a_process_may_be_called_anything(tmp_path: Path) -> None:
    program = tmp_path / ") Z 1 ("
    program.symlink_to(sys.executable)
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen([program, "-c", code], stdin=subprocess.PIPE) as process:
        assert process_start(process.pid) >= process_start(os.getpid())
        process.communicate()


@pytest.mark.parametrize("size", [0, 8, 511, 512])
def test_what_is_too_short_or_of_another_version_is_no_board(board: Board, size: int) -> None:
    data = bytes(board.cells)
    assert (parse_board(1, data[:size]) is None) == (size < 512)
    assert parse_board(1, data[:7] + bytes([data[7] + 1]) + data[8:]) is None
