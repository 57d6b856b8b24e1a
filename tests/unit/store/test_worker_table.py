"""What a master knows of its workers, written where only masters write, and how a board is joined with it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.store.board import Cell, Role
from promgun.store.run_reader import master_slot, read_board_of, read_slot_board, read_views, read_worker_rows
from promgun.store.worker_table import MOST_SLOTS, ROW_SIZE, TABLE_SIZE, WorkerRow, WorkerTable, parse_worker_table
from promgun.system.procfs import Usage, process_start
from tests.support.boards import begin, finish
from tests.support.store_fixtures import OBSTACLES, boards, master_of, open_directory, opened, slots_of

SECOND = 1_000_000_000


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "m0.workers", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def usage(user: int, system: int, voluntary: int, involuntary: int) -> Usage:
    """What a worker used, as it is read when it has ended."""
    return Usage(1, user, system, voluntary, involuntary, threads=1, resident=0, ended=True)


def rows(fd: int) -> dict[int, WorkerRow]:
    return dict(parse_worker_table(os.pread(fd, TABLE_SIZE, 0)))


def test_a_worker_s_life_is_written_down(file: int) -> None:
    table = WorkerTable(file)
    assert table[3] == WorkerRow()
    table.forked(3, 4711, 99, 1000)
    assert rows(file) == {3: WorkerRow(4711, 99, 1000, worked=1)}
    table.draining(3, 2000)
    table.draining(3, 5000)
    assert rows(file)[3].draining == 2000
    table.ended(3, 3000, usage(user=10, system=20, voluntary=3, involuntary=4))
    ended = WorkerRow(4711, 99, 1000, 2000, 3000, 10, 20, 3, 4, 1)
    assert rows(file) == {3: ended}
    table.forked(3, 4712, 100, 4000, 3000)
    assert rows(file) == {3: WorkerRow(4712, 100, 4000, 0, 0, 10, 20, 3, 4, 1, owner_ended=3000)}
    table.ended(3, 6000, usage(user=1, system=2, voluntary=3, involuntary=4))
    table.ended(3, 6000, None)
    assert rows(file)[3] == WorkerRow(4712, 100, 4000, 0, 6000, 11, 22, 6, 8, 1, owner_ended=3000)


def test_the_next_master_of_the_number_adds_to_it(file: int) -> None:
    table = WorkerTable(file)
    table.forked(1, 4711, 99, 1000)
    table.ended(1, 3000, usage(user=10, system=20, voluntary=3, involuntary=4))
    heir = WorkerTable(file)
    assert heir[1] == table[1]
    heir.ended(1, 4000, usage(user=1, system=1, voluntary=1, involuntary=1))
    assert (rows(file)[1].user, rows(file)[1].system) == (11, 21)


def test_what_could_not_be_written_is_written_later(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    table = WorkerTable(file)
    table.forked(1, 4711, 99, 1000)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        table.ended(1, 2000, None)
        table.forked(2, 4712, 99, 1000)
    assert (rows(file)[1].ended, set(rows(file))) == (0, {1})
    assert table[1].ended == 2000
    table.flush()
    assert (rows(file)[1].ended, set(rows(file))) == (2000, {1, 2})


def test_without_a_file_it_is_kept_in_memory() -> None:
    table = WorkerTable(-1)
    table.forked(1, 4711, 99, 1000)
    table.ended(1, 2000, None)
    assert (table[1].pid, table[1].ended) == (4711, 2000)


@pytest.mark.parametrize("slot", [-1, MOST_SLOTS, 1 << 40])
def test_a_slot_beyond_the_table_is_kept_in_memory(file: int, slot: int) -> None:
    table = WorkerTable(file)
    table.forked(slot, 4711, 99, 1000)
    assert table[slot].pid == 4711
    assert os.fstat(file).st_size == 0


@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * (ROW_SIZE + 5), bytes(TABLE_SIZE), os.urandom(10 * ROW_SIZE)])
def test_whatever_stands_there_is_read_as_numbers_that_can_be_right(data: bytes) -> None:
    for slot, row in parse_worker_table(data):
        assert 0 <= slot < 11
        assert all(0 <= number < 1 << 62 for number in (row.pid, row.forked, row.ended, row.user, row.worked))


def test_two_masters_know_together_what_was_used_and_the_younger_the_rest() -> None:
    old = WorkerRow(1, 10, 1000, 1500, 2000, 1, 2, 3, 4, 1)
    new = WorkerRow(2, 20, 3000, 0, 0, 10, 20, 30, 40, 1)
    assert old.joined(new) == new.joined(old) == WorkerRow(2, 20, 3000, 0, 0, 11, 22, 33, 44, 1)


# ---- joined with boards


def test_a_worker_that_ended_was_busy_until_then(tmp_path: Path) -> None:
    """Killed at scale-in it has no successor that would settle its slot."""
    now = time.monotonic_ns()
    with opened(tmp_path, Role.MASTER) as master:
        master.store.own_slot()
        with opened(tmp_path, Role.WORKER) as worker:
            worker.store.own_slot()
            worker.store.board.cells[Cell.BOOTED] = 5
            begin(worker.store.board, now - 5 * SECOND, "GET\0\0\0\0/killed")
        table = master.store.worker_table
        table.forked(1, os.getpid(), process_start(os.getpid()), now - 9 * SECOND)
        before = read_board_of(tmp_path, 1)
        table.ended(1, now - 2 * SECOND, usage(user=7, system=8, voluntary=9, involuntary=10))
        view = read_board_of(tmp_path, 1)
        assert before is not None
        assert view is not None
        assert before.busy_ns(now) == 5 * SECOND
        assert view.busy_ns(now) == view.busy_ns(now + 99 * SECOND) == 3 * SECOND
        assert (view[Cell.PID], view.in_progress, view.running()) == (0, 0, [])
        bases = (Cell.CPU_USER_BASE, Cell.CPU_SYSTEM_BASE, Cell.SWITCHES_VOLUNTARY_BASE, Cell.SWITCHES_INVOLUNTARY_BASE)
        assert [view[cell] for cell in bases] == [7, 8, 9, 10]
        assert view[Cell.WORKED] == 1


@pytest.mark.parametrize("heartbeat", [3 * SECOND, 30 * SECOND])
def test_a_worker_whose_end_nobody_wrote_down_was_busy_until_its_last_sign_of_life(
    tmp_path: Path, heartbeat: int
) -> None:
    """Under plain Gunicorn no master does. The last sign is a heartbeat, or the start of a request."""
    now = time.monotonic_ns()
    with opened(tmp_path, Role.WORKER) as worker:
        worker.store.own_slot()
        board = worker.store.board
        finish(board, begin(board, now - 99 * SECOND), now - 79 * SECOND)
        for age in (9, 5):
            begin(board, now - age * SECOND, "GET\0\0\0\0/killed")
        board.cells[Cell.HEARTBEAT] = now - heartbeat
        living = read_board_of(tmp_path, 1)
        assert living is not None
        assert (living[Cell.PID], living.busy_ns(now)) == (os.getpid(), 34 * SECOND)
    ended = read_board_of(tmp_path, 1)
    assert ended is not None
    last = min(heartbeat, 5 * SECOND)
    expected = 20 * SECOND + sum(age * SECOND - last for age in (9, 5))
    assert ended.busy_ns(now) == ended.busy_ns(now + 99 * SECOND) == expected
    assert (ended[Cell.PID], ended.in_progress, ended[Cell.WORKED]) == (0, 0, 1)


def test_what_a_master_says_of_a_former_worker_is_not_the_present_one_s(tmp_path: Path) -> None:
    with opened(tmp_path, Role.MASTER) as master, opened(tmp_path, Role.WORKER) as worker:
        master.store.own_slot()
        table = master.store.worker_table
        table.forked(1, 4711, 5, 1000)
        table.draining(1, 2000)
        table.ended(1, 3000, usage(user=7, system=8, voluntary=9, involuntary=10))
        worker.store.own_slot()
        view = read_board_of(tmp_path, 1)
        assert view is not None
        assert (view[Cell.PID], view[Cell.DRAINING], view[Cell.CPU_USER_BASE]) == (os.getpid(), 0, 7)


def test_a_worker_that_was_asked_to_end_drains_whatever_it_says(tmp_path: Path) -> None:
    with opened(tmp_path, Role.MASTER) as master, opened(tmp_path, Role.WORKER) as worker:
        master.store.own_slot()
        worker.store.own_slot()
        master.store.worker_table.forked(1, os.getpid(), process_start(os.getpid()), 1000)
        master.store.worker_table.draining(1, 2000)
        view = read_board_of(tmp_path, 1)
        assert view is not None
        assert (view[Cell.PID], bool(view[Cell.DRAINING])) == (os.getpid(), True)


def test_a_worker_that_has_not_opened_its_file_yet_is_there(tmp_path: Path) -> None:
    """It takes the slot over when it has changed its user."""
    with opened(tmp_path, Role.WORKER) as former:
        former.store.own_slot()
        begin(former.store.board, former.store.board.cells[Cell.HEARTBEAT] - 5 * SECOND)
    with opened(tmp_path, Role.MASTER) as master:
        master.store.own_slot()
        now = time.monotonic_ns()
        master.store.worker_table.forked(1, 4711, 5, now)
        view = read_board_of(tmp_path, 1)
        assert view is not None
        assert (view[Cell.PID], view[Cell.PROCESS_START], view[Cell.ROLE]) == (4711, 5, Role.WORKER)
        assert (view[Cell.CLAIMED], view[Cell.HEARTBEAT], view.in_progress) == (now, now, 0)
        assert view.busy_ns(now + 99 * SECOND) == 5 * SECOND
        master.store.worker_table.ended(1, now + 1, None)
        gone = read_board_of(tmp_path, 1)
        assert gone is not None
        assert gone[Cell.PID] != 4711


@pytest.mark.parametrize(("known", "busy"), [("its end", 20), ("its last heartbeat", 10)])
def test_busy_time_neither_sinks_nor_runs_on_while_a_slot_changes_hands(tmp_path: Path, known: str, busy: int) -> None:
    """Its worker was killed in a request; the next one did not live to open its file, and the one after it does."""
    now = time.monotonic_ns()

    def shown() -> float:
        view = read_board_of(tmp_path, 1)
        assert view is not None
        return view.busy_ns(now + 99 * SECOND) / SECOND

    with opened(tmp_path, Role.MASTER) as master:
        master.store.own_slot()
        table = master.store.worker_table
        with opened(tmp_path, Role.WORKER) as killed:
            killed.store.own_slot()
            cells = killed.store.board.cells
            cells[Cell.CLAIMED] = now - 110 * SECOND
            begin(killed.store.board, now - 100 * SECOND)
            cells[Cell.HEARTBEAT] = now - 90 * SECOND
        view = read_slot_board(open_directory(tmp_path), 1)
        assert view is not None
        if known == "its end":
            table.forked(1, view[Cell.PID], view[Cell.PROCESS_START], now - 105 * SECOND)
            table.ended(1, now - 80 * SECOND, None)
        assert shown() == busy
        for pid in (4711, 4712):
            lock = master.store.reserve()
            assert lock is not None
            table.forked(1, pid, 5, now - 50 * SECOND, lock.owner_ended_at)
            assert shown() == busy
            master.store.forget([lock])
            table.ended(1, now - 40 * SECOND, None)
            assert shown() == busy
        with opened(tmp_path, Role.WORKER) as heir:
            assert heir.store.own_slot() == 1
            assert shown() == busy
        assert shown() == busy


# ---- reading boards


def test_boards_are_read_masters_first_then_slots_in_order(tmp_path: Path) -> None:
    assert boards(tmp_path) == []
    assert boards(tmp_path / "gone") == []
    with opened(tmp_path, Role.MASTER) as master, opened(tmp_path, Role.MASTER) as second:
        for process in (master, second):
            process.store.own_slot()
            process.store.flush()
        with (
            opened(tmp_path, Role.WORKER) as first,
            opened(tmp_path) as other,
        ):
            for process in (first, other):
                process.store.own_slot()
            assert [view.slot for view in boards(tmp_path)] == [-1, -2, 1, 2]
            roles = [view[Cell.ROLE] for view in boards(tmp_path)]
            assert roles == [Role.MASTER, Role.MASTER, Role.WORKER, Role.OTHER]
    assert (master_slot(0), master_slot(1)) == (-1, -2)


def test_slots_are_sorted_as_numbers(tmp_path: Path) -> None:
    with opened(tmp_path) as process:
        process.store.own_slot()
        content = (slots_of(tmp_path) / "1").read_bytes()[:65536]
        for number in (10, 9, 2):
            (slots_of(tmp_path) / str(number)).write_bytes(content)
        assert [view.slot for view in read_views(tmp_path)] == [1, 2, 9, 10]


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_board_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    open_directory(tmp_path).close()
    OBSTACLES[kind](slots_of(tmp_path) / "5")
    assert read_board_of(tmp_path, 5) is None
    assert boards(tmp_path) == []
    OBSTACLES[kind](master_of(tmp_path) / "m0")
    assert read_board_of(tmp_path, -1) is None
    assert boards(tmp_path) == []


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_table_says_nothing(tmp_path: Path, kind: str) -> None:
    with opened(tmp_path) as process:
        process.store.own_slot()
        OBSTACLES[kind](master_of(tmp_path) / "m0.workers")
        assert read_worker_rows(tmp_path) == {}
        assert [view.slot for view in boards(tmp_path)] == [1]


@pytest.mark.parametrize("part", ["slots", "master"])
def test_a_part_that_is_a_link_is_not_followed(tmp_path: Path, part: str) -> None:
    with opened(tmp_path, Role.MASTER) as master, opened(tmp_path) as process:
        for one in (master, process):
            one.store.own_slot()
            one.store.flush()
        (tmp_path / part).rename(tmp_path / "moved")
        (tmp_path / part).symlink_to("moved")
        assert [view.slot for view in boards(tmp_path)] == ([-1] if part == "slots" else [1])
        assert read_board_of(tmp_path, 1 if part == "slots" else -1) is None
