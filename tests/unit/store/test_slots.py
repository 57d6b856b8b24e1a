"""Slots: who holds which, decided by the kernel, and freed by it whatever becomes of the holder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from promgun.store.board import Cell, Role
from promgun.store.files import Owner
from promgun.store.process import ProcessStore
from promgun.store.slots import claim, read_board, read_boards
from tests.support.store_fixtures import (
    OBSTACLES,
    descriptors,
    fork,
    in_fresh_interpreter,
    key_of,
    open_directory,
    read_values,
    wait_for,
)


def numbers(path: Path) -> list[int]:
    return [view.slot for view, _ in read_boards(path)]


def test_the_lowest_free_slot_is_taken(tmp_path: Path) -> None:
    slots = [claim(tmp_path, Owner()) for _ in range(4)]
    assert [slot.number for slot in slots] == [0, 1, 2, 3]
    slots[1].release()
    slots[2].release()
    assert claim(tmp_path, Owner()).number == 1
    for slot in slots:
        slot.release()


def test_a_forgotten_slot_is_free(tmp_path: Path) -> None:
    open_before = descriptors()
    for _ in range(3):
        assert claim(tmp_path, Owner()).number == 0
    assert descriptors() == open_before


def test_releasing_twice_closes_nothing_of_others(tmp_path: Path) -> None:
    slot = claim(tmp_path, Owner())
    slot.release()
    with (tmp_path / "other").open("w") as other:
        slot.release()
        other.write("still open")
    assert slot.fd is None


@pytest.mark.parametrize("kind", OBSTACLES.keys() - {"fifo"})
def test_what_is_no_lock_file_is_passed_by(tmp_path: Path, kind: str) -> None:
    OBSTACLES[kind](tmp_path / "slot-0.lock")
    slot = claim(tmp_path, Owner())
    assert slot.number == 1
    assert numbers(tmp_path) == [1]
    slot.release()


def test_a_fifo_can_be_locked_but_holds_no_board(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slot-0.lock")
    slot = claim(tmp_path, Owner())
    assert (slot.number, slot.board.shared) == (0, False)
    assert numbers(tmp_path) == []
    slot.release()


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        claim(tmp_path / "gone", Owner())


def test_boards_are_read_in_slot_order(tmp_path: Path) -> None:
    slots = [claim(tmp_path, Owner()) for _ in range(12)]
    assert numbers(tmp_path) == list(range(12))
    for slot in slots:
        slot.release()
    assert list(read_boards(tmp_path / "gone")) == []


@pytest.mark.parametrize("content", [b"", b"x", bytes(4096), b"\xff" * 4096, b"promgun\0" + bytes(5000)])
def test_what_is_no_board_is_not_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "slot-0.lock").write_bytes(content)
    assert numbers(tmp_path) == []
    slot = claim(tmp_path, Owner())
    slot.take_over(Role.WORKER)
    (view, alive), *rest = read_boards(tmp_path)
    assert not rest
    assert alive
    assert view[Cell.PID] == os.getpid()
    slot.release()


@pytest.mark.parametrize("kind", OBSTACLES)
def test_foreign_entries_hold_nobody_up(tmp_path: Path, kind: str) -> None:
    OBSTACLES[kind](tmp_path / "slot-5.lock")
    directory_fd = os.open(tmp_path, os.O_RDONLY)
    assert read_board(directory_fd, 5) is None
    os.close(directory_fd)


# ---- processes


def _killed_holders(path: str) -> list[int]:
    """Two children at a time are given slots; each is killed, and the next must get the same."""
    store = ProcessStore()
    store.open(open_directory(path))
    taken = []
    for _ in range(5):
        pids, slots = [], []
        for _ in range(2):
            slots.append(store.reserve())
            pids.append(fork(lambda: time.sleep(60)))
        taken += [slot.number for slot in slots if slot is not None]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        store.forget(slot for slot in slots if slot is not None)
    return taken


def test_a_kill_frees_the_slot(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_killed_holders, tmp_path) == [0, 1] * 5


def _younger_siblings(path: str) -> list[int]:
    """A child is killed while younger ones live, which inherited everything the parent had at their fork."""
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot(Role.MASTER)
    kept, pids = [], []
    for _ in range(4):
        slot = store.reserve()
        assert slot is not None
        kept.append(slot)
        pids.append(fork(lambda: time.sleep(60)))
    taken = []
    for round_ in range(3):
        os.kill(pids[round_], signal.SIGKILL)
        os.waitpid(pids[round_], 0)
        store.forget([kept[round_]])
        slot = store.reserve()
        assert slot is not None
        taken.append(slot.number)
        kept.append(slot)
        pids.append(fork(lambda: time.sleep(60)))
    for pid in pids[3:]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return taken


def test_siblings_do_not_hold_each_others_slots(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_younger_siblings, tmp_path) == [1, 2, 3]


def _inherited(path: str) -> list[list[str]]:
    """Each child tells which locks hang on what it has open, itself or through a mapping."""
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot(Role.MASTER)
    reading, writing = os.pipe()
    kept, told = [], []

    def tell() -> None:
        held = set()
        for number in os.listdir("/proc/self/fd"):
            # proc(5): a line for each lock of the open file description
            with contextlib.suppress(FileNotFoundError):
                if "lock:" in Path("/proc/self/fdinfo", number).read_text():
                    held.add(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        os.write(writing, json.dumps(sorted(held)).encode())

    for reserve in (True, True, False):
        kept.append(store.reserve() if reserve else None)
        wait_for(fork(tell))
        told.append(json.loads(os.read(reading, 4096)))
    return told


def test_a_child_holds_no_lock_but_its_own(tmp_path: Path) -> None:
    """And that of the store, which says that somebody lives."""
    assert in_fresh_interpreter(_inherited, tmp_path) == [
        ["slot-1.lock", "store.lock"],
        ["slot-2.lock", "store.lock"],
        ["store.lock"],
    ]


def _family(path: str) -> list[int]:
    """Master, child and grandchild each count once; the child ends before the grandchild does."""
    store = ProcessStore()
    store.open(open_directory(path))
    directory = Path(path)

    def count() -> int:
        cells, (index,) = store.places("counter", [key_of(1)])
        cells[index] += 1.0
        assert store.slot is not None
        return store.slot.number

    numbers = [count()]
    reading, writing = os.pipe()
    may_end, end = os.pipe()

    def grandchild() -> None:
        os.close(end)
        os.write(writing, bytes([count()]))
        os.read(may_end, 1)

    def child() -> None:
        os.write(writing, bytes([count()]))
        fork(grandchild)

    slot = store.reserve()
    wait_for(fork(child))
    numbers += sorted(os.read(reading, 1)[0] for _ in range(2))
    assert slot is not None
    store.forget([slot])
    # The child is gone, its own child is not: it must hold its slot and no other.
    freed = claim(directory, Owner())
    numbers.append(freed.number)
    freed.release()
    os.close(end)
    return numbers


def test_grandchildren_have_slots_of_their_own(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_family, tmp_path) == [0, 1, 2, 1]
    assert [read_values(path) for path in sorted(tmp_path.glob("*.db"))] == [{key_of(1): 1.0}] * 3


def _reserved(path: str) -> list[int | None]:
    """A reserved slot is the next child's alone; a child without one takes its own when it needs it."""
    store = ProcessStore()
    store.open(open_directory(path))
    reading, writing = os.pipe()

    def tell() -> None:
        before = store.slot.number if store.slot is not None else 99
        slot = store.own_slot()
        assert slot is not None
        os.write(writing, bytes([before, slot.number, store.role]))

    reserved = store.reserve()
    for _ in range(2):
        wait_for(fork(tell))
    assert store.slot is None
    told = [*os.read(reading, 3), *os.read(reading, 3)]
    return [None if reserved is None else reserved.number, *told]


def test_a_reserved_slot_goes_to_the_next_child_only(tmp_path: Path) -> None:
    found = in_fresh_interpreter(_reserved, tmp_path)
    assert found == [0, 0, 0, Role.WORKER, 99, 1, Role.OTHER]


def _race(path: str) -> list[list[int]]:
    """Several processes take and free slots at once; no two may ever hold the same."""
    directory = Path(path)
    marks = directory / "marks"
    marks.mkdir()

    def work() -> None:
        for _ in range(100):
            slot = claim(directory, Owner())
            mark = marks / str(slot.number)
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            mark.unlink()
            slot.release()

    wait_for(*[fork(work) for _ in range(4)])
    return [numbers(directory)]


def test_no_two_processes_hold_the_same_slot(tmp_path: Path) -> None:
    ((*taken,),) = in_fresh_interpreter(_race, tmp_path)
    assert taken == list(range(len(taken)))
    assert len(taken) <= 4
