"""Where a process stores: what a worker takes over of a slot, what a master keeps, and what neither opens too early."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import mmap
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promgun.store import late_app_metrics
from promgun.store.board import Cell, Role
from promgun.store.new_file import Owner
from promgun.store.process import ProcessStore
from promgun.store.request_table import BUSY, FIRST
from promgun.store.row_format import CellGroup, RowSchema
from promgun.store.run_reader import read_board_of, read_slot_board
from promgun.store.values import value_class
from promgun.system.procfs import process_start
from tests.support.boards import begin
from tests.support.store_fixtures import (
    OBSTACLES,
    boards,
    client_of,
    descriptors,
    fork,
    in_fresh_interpreter,
    master_of,
    open_directory,
    opened,
    public_folder,
    slots_of,
    stock_totals,
    totals,
    wait_for,
)

NOBODY = 65534
SECOND = 1_000_000_000
SCHEMA = RowSchema(("n",), (CellGroup("rows_total", ("n",)),))
needs_root = pytest.mark.needs_root("change user")


def count(store: ProcessStore, amount: float = 1.0, kind: str = "counter", mode: str = "") -> None:
    """Count in a metric of the application."""
    name = kind[0]
    suffix = "_total" if kind == "counter" else ""
    value_class(store.app.values)(kind, name, f"{name}{suffix}", (), (), "Help.", multiprocess_mode=mode).inc(amount)


def count_row(store: ProcessStore, text: str, amount: float = 1.0) -> None:
    """Count in a row of ours."""
    cells, indexes = store.allocate_row(SCHEMA, (text,), lambda *_: None)
    cells[indexes[0]] += amount


# ---- taking over


def _killed_in_turn(path: str, times: int) -> list[int]:
    """Each worker counts, begins a request and is killed in it; the master writes down when it ended."""
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot()
    numbers = []
    reading, writing = os.pipe()

    def work() -> None:
        assert store.own_slot() is not None
        count(store)
        count_row(store, "same")
        count_row(store, str(os.getpid()))
        count(store, 5, "gauge", "livesum")
        begin(store.board, time.monotonic_ns() - SECOND, "GET\0\0\0\0/killed")
        os.write(writing, b"x")
        time.sleep(60)

    for _ in range(times):
        lock = store.reserve()
        assert lock is not None
        numbers.append(lock.number)
        pid = fork(work)
        store.worker_table.forked(lock.number, pid, process_start(pid), time.monotonic_ns())
        os.read(reading, 1)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        store.worker_table.ended(lock.number, time.monotonic_ns(), None)
        store.forget([lock])
    store.flush()
    return numbers


def test_who_is_killed_leaves_its_slot_to_the_next_with_all_that_was_counted(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_killed_in_turn, tmp_path, 4) == [1] * 4
    found = totals(tmp_path)
    assert (found["c_total{}"], found["rows_total{n=same}"], found["g{}"]) == (4.0, 4.0, 5.0)
    assert len([key for key in found if key.startswith("rows_total")]) == 5
    view = read_board_of(tmp_path, 1)
    assert view is not None
    # Each was busy for a second and a little, and no longer than it lived.
    assert 4 * SECOND <= view[Cell.BUSY_BASE] + SECOND < 60 * SECOND


def _killed_under_another_master(path: str, known: str) -> list[int]:
    """A slot's last owner, busy for 80 seconds, was another master's worker (SIGUSR2); ours ended in it long ago.

    ``known``: what the other master has written of its worker's end.
    """
    now = time.monotonic_ns()
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot(Role.MASTER)
    store.worker_table.forked(1, 1 << 21, 1, now - 200 * SECOND)
    store.worker_table.ended(1, now - 100 * SECOND, None)
    reading, writing = os.pipe()

    def other_master() -> None:
        other = ProcessStore()
        other._registered = True
        other.open(open_directory(path))
        other.own_slot(Role.MASTER)
        lock = other.reserve()
        assert lock is not None

        def work() -> None:
            other._after_fork_in_child()
            other.own_slot(Role.WORKER)
            cells = other.board.cells
            cells[FIRST + BUSY] += 30 * SECOND
            begin(other.board, now - 50 * SECOND, "GET\0\0\0\0/killed")
            cells[Cell.HEARTBEAT] = now - SECOND

        pid = fork(work)
        os.waitpid(pid, 0)
        view = read_slot_board(open_directory(path), 1)
        assert view is not None
        other.worker_table.forked(1, view[Cell.PID], view[Cell.PROCESS_START], now - 90 * SECOND)
        if known == "ended":
            other.worker_table.ended(1, now, None)
        os.write(writing, b"x")

    wait_for(fork(other_master))
    os.read(reading, 1)
    lock = store.reserve()
    assert lock is not None
    return [lock.number, (lock.owner_ended_at - now) // SECOND]


@pytest.mark.parametrize(("known", "ended"), [("ended", 0), ("nothing", -1)])
def test_an_owner_that_another_master_had_forked_keeps_its_busy_time(tmp_path: Path, known: str, ended: int) -> None:
    """Its own table told the master when another process had ended, so that busy seconds sank."""
    assert in_fresh_interpreter(_killed_under_another_master, tmp_path, known) == [1, ended]


def test_what_the_last_owner_was_doing_can_be_read_until_the_next_moves_in(tmp_path: Path) -> None:
    with opened(tmp_path, Role.WORKER) as first:
        first.store.own_slot()
        begin(first.store.board, time.monotonic_ns(), "GET\0\0\0\0/killed")
    directory = open_directory(tmp_path)
    store = ProcessStore()
    store._registered = True
    store.open(directory)
    lock = store.reserve()
    assert lock is not None
    assert lock.number == 1
    view = read_slot_board(directory, 1)
    assert view is not None
    assert [request.path for request in view.running()] == ["/killed"]
    lock.release()
    directory.close()
    with opened(tmp_path, Role.WORKER) as heir:
        heir.store.own_slot()
        taken = read_board_of(tmp_path, 1)
        assert taken is not None
        assert not taken.running()


def test_gauges_of_the_living_are_gone_for_the_next_owner_and_for_stock_readers(tmp_path: Path) -> None:
    with opened(tmp_path) as first, opened(tmp_path) as second:
        for amount, process in ((3.0, first), (4.0, second)):
            count(process.store, amount, "gauge", "livesum")
            count(process.store, amount, "counter")
        assert totals(tmp_path)["g{}"] == stock_totals(tmp_path)["g{}"] == 7.0
    with opened(tmp_path) as heir:
        assert heir.store.own_slot() == 1
        expected = {"c_total{}": 7.0, "g{}": 4.0}
        assert totals(tmp_path) == stock_totals(tmp_path) == expected
        names = {"1", "1.counter", "1.lock", "2", "2.counter", "2.gauge_livesum", "2.lock"}
        assert set(os.listdir(slots_of(tmp_path))) - {"folding-begun"} == names


def test_slot_1_is_not_taken_for_slot_11(tmp_path: Path) -> None:
    open_directory(tmp_path).close()
    (slots_of(tmp_path) / "11.gauge_livesum").touch()
    with opened(tmp_path) as one:
        assert one.store.own_slot() == 1
    assert (slots_of(tmp_path) / "11.gauge_livesum").exists()


# ---- what lies in the place of a file


@pytest.mark.parametrize("kind", OBSTACLES)
def test_whatever_stands_in_the_place_of_a_slot_s_file_costs_only_what_is_stored(tmp_path: Path, kind: str) -> None:
    with opened(tmp_path, Role.WORKER) as process:
        OBSTACLES[kind](slots_of(tmp_path) / "1")
        assert process.store.own_slot() == 1
        count_row(process.store, "x", 3)
        process.retry()
        assert boards(tmp_path) == []
        assert process.store.board.cells[Cell.ERRORS_PERMISSION] > 0
        precious = slots_of(tmp_path) / "precious.txt"
        assert not precious.exists() or precious.read_text() == "precious"
        assert not (slots_of(tmp_path) / "nowhere").exists()
        (slots_of(tmp_path) / "1").rmdir() if kind == "directory" else (slots_of(tmp_path) / "1").unlink()
        process.retry()
        assert totals(tmp_path) == {"rows_total{n=x}": 3.0}


@pytest.mark.parametrize("content", [b"", b"x", bytes(1 << 16), b"\xff" * (1 << 16), os.urandom(1 << 14)])
def test_nonsense_in_a_slot_s_file_is_stepped_over(tmp_path: Path, content: bytes) -> None:
    open_directory(tmp_path).close()
    (slots_of(tmp_path) / "1").write_bytes(content)
    with opened(tmp_path, Role.WORKER) as process:
        count_row(process.store, "x", 3)
        assert totals(tmp_path)["rows_total{n=x}"] == 3.0


def test_pages_are_there_before_they_are_written(tmp_path: Path) -> None:
    """A sparse mapping kills its process with SIGBUS on a full file system."""
    with opened(tmp_path, Role.WORKER) as process:
        for number in range(500):
            count_row(process.store, f"{number:0100}")
            status = (slots_of(tmp_path) / "1").stat()
            assert isinstance(process.store._home, object)
            assert process.store._home is not None
            assert process.store._home.rows.end <= status.st_blocks * 512
        assert status.st_blocks * 512 < 1 << 19 < status.st_size


def test_a_file_that_was_replaced_is_not_reserved_for(tmp_path: Path) -> None:
    with opened(tmp_path, Role.WORKER) as process:
        count_row(process.store, "first")
        (slots_of(tmp_path) / "1").unlink()
        (slots_of(tmp_path) / "1").write_bytes(b"another's")
        for number in range(200):
            count_row(process.store, f"{number:0100}")
        assert (slots_of(tmp_path) / "1").read_bytes() == b"another's"
        assert process.store.board.cells[Cell.ERRORS_PERMISSION] > 0


# ---- before and after the change of user


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as path:
        yield path


@needs_root
def test_values_wait_while_this_is_not_the_workers_user(public: Path) -> None:
    """A root master's worker opens nothing that the workers can have put there before it is one of them."""
    assert in_fresh_interpreter(_change_user, public) == [0, 3]
    assert totals(public) == {"c_total{}": 2.0, "rows_total{n=x}": 3.0}
    for entry in slots_of(public).iterdir():
        assert entry.stat().st_uid == NOBODY
    assert stock_totals(public) == {"c_total{}": 2.0}


def _change_user(path: str) -> list[int]:
    opened_as_root: list[str] = []
    watching = [False]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching[0] and event == "open" and os.geteuid() == 0:
            opened_as_root.append(str(arguments[0]))

    late_app_metrics.load_ahead()
    sys.addaudithook(watch)
    store = ProcessStore()
    store.open(open_directory(path, Owner(NOBODY, NOBODY)))
    store.own_slot()
    lock = store.reserve()
    assert lock is not None

    def work() -> None:
        watching[0] = True
        assert store.own_slot() == 1
        count(store, 2)
        count_row(store, "x", 3)
        store.retry_now()
        assert opened_as_root == []
        assert not (slots_of(path) / "1").exists()
        assert store.board.cells[Cell.ERRORS_PERMISSION] == 0
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        store.retry_now()
        assert store.board.shared

    wait_for(fork(work))
    return [store.board.cells[Cell.ERRORS_PERMISSION], len(set(os.listdir(slots_of(path))) - {"folding-begun"})]


# ---- masters


def test_a_master_maps_nothing(tmp_path: Path) -> None:
    """Every worker would inherit the mapping, whatever the mode of the folder."""
    with opened(tmp_path, Role.MASTER) as process:
        count(process.store)
        count_row(process.store, "x")
        process.store.worker_table.forked(1, os.getpid(), 5, 7)
        process.store.flush()
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()
        assert sorted(os.listdir(master_of(tmp_path))) == ["m0", "m0.counter", "m0.workers"]
        assert totals(tmp_path) == {"c_total{}": 1.0, "rows_total{n=x}": 1.0}


def test_the_next_master_counts_on(tmp_path: Path) -> None:
    for _ in range(3):
        with opened(tmp_path, Role.MASTER) as process:
            count(process.store)
            count_row(process.store, "x")
    assert totals(tmp_path) == {"c_total{}": 3.0, "rows_total{n=x}": 3.0}


def test_two_masters_have_files_of_their_own(tmp_path: Path) -> None:
    with opened(tmp_path, Role.MASTER) as first, opened(tmp_path, Role.MASTER) as second:
        for process in (first, second):
            count_row(process.store, "x")
        assert (first.store.number, second.store.number) == (0, 1)
    assert totals(tmp_path) == {"rows_total{n=x}": 2.0}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_master_s_files_may_be_read_by_the_workers_group(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with opened(tmp_path, Role.MASTER) as process:
            count(process.store)
            process.store.flush()
    finally:
        os.umask(before)
    assert {entry.stat().st_mode & 0o777 for entry in master_of(tmp_path).iterdir()} == {0o640}


def test_a_master_without_space_goes_on_and_writes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with opened(tmp_path, Role.MASTER) as process:
        process.store.own_slot()
        count_row(process.store, "x", 2)
        process.store.worker_table.forked(1, 4711, 5, 7)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            count_row(process.store, "y", 3)
            process.store.flush()
        assert process.store.board.cells[Cell.ERRORS_NO_SPACE] == 1
        process.store.flush()
    assert totals(tmp_path) == {"rows_total{n=x}": 2.0, "rows_total{n=y}": 3.0}


def _scribble(path: str) -> list[float]:
    """A child writes over all that it inherited of the store: every writable mapping of a file, every descriptor."""
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot()
    count_row(store, "x", 2)
    lock = store.reserve()

    def scribble() -> None:
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{number}").startswith(path):
                    os.pwrite(int(number), b"\xff" * 4096, 0)
        for line in Path("/proc/self/maps").read_text().splitlines():
            assert path not in line

    assert mmap.PAGESIZE
    wait_for(fork(scribble))
    assert lock is not None
    count_row(store, "x", 3)
    store.flush()
    return [store.board.cells[Cell.ERRORS_CORRUPT]]


def test_a_child_that_scribbles_over_what_it_inherited_harms_no_master(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_scribble, tmp_path) == [0]
    assert totals(tmp_path) == {"rows_total{n=x}": 5.0}


# ---- descriptors


def _descriptors_of_a_worker(path: str) -> list[int]:
    """What a worker has open for its slot and its rows, beyond what it had before it was one."""
    before = descriptors()
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot()
    store.reserve()
    in_master = descriptors()
    reading, writing = os.pipe()

    def work() -> None:
        store.own_slot()
        for number in range(2000):
            count_row(store, f"{number:0100}")
        store.retry_now()
        os.write(writing, bytes([descriptors() - 2 - before]))

    wait_for(fork(work))
    return [os.read(reading, 1)[0], in_master - before]


def test_a_worker_has_two_descriptors_for_our_metrics(tmp_path: Path) -> None:
    """The lock of its slot and the one that Python's mapping keeps of its file."""
    of_worker, _ = in_fresh_interpreter(_descriptors_of_a_worker, tmp_path)
    assert of_worker == 2


def _descriptors_of_a_master(path: str) -> list[int]:
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot()
    found, locks, pids = [descriptors()], [], []
    for _ in range(5):
        locks.append(store.reserve())
        pids.append(fork(lambda: time.sleep(60)))
        found.append(descriptors())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    store.forget(lock for lock in locks if lock is not None)
    locks.clear()
    found.append(descriptors())
    return [number - found[0] for number in found]


def test_a_master_has_no_descriptor_for_a_worker(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_descriptors_of_a_master, tmp_path) == [0, 0, 0, 0, 0, 0, 0]


def test_a_masters_own_descriptors_are_constant(tmp_path: Path) -> None:
    # Locks of other tests that nobody has any more.
    gc.collect()
    before = descriptors()
    with opened(tmp_path, Role.MASTER) as process:
        process.store.own_slot()
        for number in range(300):
            count_row(process.store, str(number))
            process.store.worker_table.forked(number, 4711, 5, 7)
            process.store.flush()
        # The run's directory with its lock, m0 and m0.workers.
        assert descriptors() - before == 3
    assert descriptors() == before


def test_a_worker_holds_no_lock_of_its_master(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    store = ProcessStore()
    store._registered = True
    store.open(directory)
    store.own_slot()
    with (master_of(tmp_path) / "m0").open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    store._home.close()  # type: ignore[union-attr] # it has one
    with (master_of(tmp_path) / "m0").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    directory.close()
    assert client_of(tmp_path).is_dir()
