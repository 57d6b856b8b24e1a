"""Values on their way from private memory into a file."""

from __future__ import annotations

import errno
import math
import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from promgun.store.pending import PendingSeries, PendingValues, Places, StoreErrors


def no_place() -> Places:
    raise OSError(errno.ENOSPC, "full")


class Owner:
    """Somebody who counts: values of a file in prometheus_client's format, a time stamp behind each."""

    def __init__(self, file: str, count: int = 1) -> None:
        self.find: Callable[[], Places] = no_place
        replaces = file.startswith("gauge")
        self.waiting = PendingValues(file, self._find_now, self.placed, count, stamped=True, replaces=replaces)
        self.cells: Any = self.waiting.cells
        self.indexes: Sequence[int] = self.waiting.indexes

    def _find_now(self) -> Places:
        return self.find()

    def placed(self, cells: Any, indexes: Sequence[int]) -> None:
        """Go on in these cells."""
        self.cells, self.indexes = cells, indexes

    def inc(self, amount: float, at: int = 0) -> None:
        """Count."""
        self.cells[self.indexes[at]] += amount


def a_file(*values: float) -> Any:
    """Return cells of a file in which values and time stamps stand in turns."""
    return array("d", values)


def test_counted_values_are_added() -> None:
    owner = Owner("counter", 2)
    owner.inc(2)
    owner.inc(3, at=1)
    file = a_file(10, 0, 20, 0)
    owner.waiting.move(file, [0, 2])
    assert list(file) == [12, 0, 23, 0]
    owner.inc(1)
    owner.waiting.carry_over()
    assert list(file) == [13, 0, 23, 0]


def test_gauges_take_the_place_of_what_stands_there() -> None:
    owner = Owner("gauge_max")
    owner.cells[0], owner.cells[1] = 5.0, 77.0
    file = a_file(10, 1)
    owner.waiting.move(file, [0])
    owner.waiting.carry_over()
    assert list(file) == [5, 77]


def test_a_gauge_that_nobody_touched_leaves_what_stands_there() -> None:
    file = a_file(10, 1)
    Owner("gauge_max").waiting.move(file, [0])
    assert list(file) == [10, 1]


@pytest.mark.parametrize("prefix", ["counter", "gauge_livesum"])
def test_who_looked_the_cell_up_before_the_move_is_heard_after_it(prefix: str) -> None:
    owner = Owner(prefix)
    owner.inc(2)
    private = owner.cells
    file = a_file(0, 0)
    owner.waiting.move(file, [0])
    private[0] += 1.0
    owner.inc(4)
    for _ in range(2):
        owner.waiting.carry_over()
    assert file[0] == 7.0


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_odd_numbers_move_once(odd: float) -> None:
    owner = Owner("gauge_all")
    owner.cells[0] = odd
    file = a_file(0, 0)
    owner.waiting.move(file, [0])
    assert str(file[0]) == str(odd)
    owner.cells[0] = 5.0
    for _ in range(2):
        owner.waiting.carry_over()
    assert file[0] == 5.0


def test_rows_have_no_time_stamps() -> None:
    row = PendingValues("rows", no_place, lambda *_: None, 3)
    assert (len(row.cells), list(row.indexes)) == (3, [0, 1, 2])
    row.cells[0], row.cells[2] = 4.0, 5.0
    file = a_file(9, 1, 1, 1, 9)
    row.move(file, range(1, 4))
    row.cells[1] += 2.0
    for _ in range(2):
        row.carry_over()
    assert list(file) == [9, 5, 3, 6, 9]


def test_a_room_moves_what_finds_a_place() -> None:
    room = PendingSeries()
    owners = [Owner(prefix) for prefix in ("counter", "gauge_all", "counter")]
    for owner in owners:
        owner.inc(1)
        room.add(owner.waiting)
    asked: list[str] = []
    file = a_file(0, 0)

    def finder(name: str, places: Callable[[], Places]) -> Callable[[], Places]:
        def find() -> Places:
            asked.append(name)
            return places()

        return find

    for owner in owners:
        is_gauge = owner.waiting.file == "gauge_all"
        owner.find = finder(owner.waiting.file, (lambda: (file, [0])) if is_gauge else no_place)
    room.move_in(threading.RLock())
    # Of a file that had no place nothing more is tried.
    assert asked == ["counter", "gauge_all"]
    empty = [room.empty]
    assert (file[0], len(room)) == (1.0, 2)
    counters = a_file(0, 0)
    for owner in owners:
        owner.find = lambda: (counters, [0])
    room.move_in(threading.RLock())
    assert [*empty, room.empty] == [False, True]
    assert counters[0] == 2.0


def test_a_room_looks_after_what_moved_once_more() -> None:
    room, owner, file = PendingSeries(), Owner("counter"), a_file(0, 0)
    room.add(owner.waiting)
    private = owner.cells
    owner.find = lambda: (file, [0])
    room.move_in(threading.RLock())
    private[0] += 1.0
    assert file[0] == 0.0
    room.move_in(threading.RLock())
    assert file[0] == 1.0


def test_a_room_takes_in_while_it_moves() -> None:
    room, late, owner = PendingSeries(), Owner("histogram"), Owner("counter")
    room.add(owner.waiting)

    def find() -> Places:
        room.add(late.waiting)
        return a_file(0, 0), [0]

    owner.find = find
    room.move_in(threading.RLock())
    empty = [room.empty]
    room.clear()
    assert [*empty, room.empty] == [False, True]


def test_two_who_move_do_it_once() -> None:
    room, lock = PendingSeries(), threading.RLock()
    owner, other = Owner("gauge_max"), Owner("counter")
    owner.cells[0] = 5.0
    for item in (other, owner):
        room.add(item.waiting)
    file = a_file(0, 0, 0, 0)
    owner.find = lambda: (file, [0])

    def find() -> Places:
        # Meanwhile another thread moves all of it, and the gauge goes on.
        other.find = lambda: (file, [2])
        room.move_in(lock)
        owner.cells[owner.indexes[0]] = 7.0
        return file, [2]

    other.find = find
    other.inc(1)
    room.move_in(lock)
    assert room.empty
    assert (file[0], file[2]) == (7.0, 1.0)


def test_threads_lose_nothing_to_a_move() -> None:
    for _ in range(20):
        owner = Owner("counter")
        room = PendingSeries()
        room.add(owner.waiting)
        file = a_file(0, 0)
        owner.find = lambda file=file: (file, [0])  # type: ignore[misc] # bound to this round's
        begun = threading.Barrier(5)

        def work(owner: Owner = owner, begun: threading.Barrier = begun) -> None:
            begun.wait()
            for _ in range(2000):
                cells, index = owner.cells, owner.indexes[0]
                cells[index] += 1.0

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        begun.wait()
        room.move_in(threading.RLock())
        for thread in threads:
            thread.join()
        room.move_in(threading.RLock())
        assert file[0] == 8000


def test_trouble_is_told_once_an_episode() -> None:
    errors = StoreErrors()
    told: list[str] = []
    for episode in (1, 2):
        for _ in range(3):
            errors.note(OSError(errno.ENOSPC, "No space left", "/store/file"), "/store")
        errors.log_once(None)
        errors.log_once(told.append)
        errors.log_once(told.append)
        assert len(told) == episode
        errors.over()
    errors.note(OSError(errno.ENOSPC, "No space left"), "/store")
    errors.forked()
    errors.log_once(told.append)
    assert len(told) == 2
    assert "No space left: /store/file" in told[0]
