"""Values on their way from private memory into a file."""

from __future__ import annotations

import errno
import math
import threading
from array import array
from collections.abc import Sequence
from typing import Any

import pytest

from promgun.store.pending import PendingSeries, StoreErrors, Waiting


class Owner:
    """Somebody who counts."""

    def __init__(self, prefix: str, count: int = 1) -> None:
        self.waiting = Waiting(prefix, lambda: [f"k{n}" for n in range(count)], self.settled)
        self.cells: Any = self.waiting.cells
        self.indexes: Sequence[int] = self.waiting.indexes

    def settled(self, cells: Any, indexes: Sequence[int]) -> None:
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
    owner.waiting.sweep()
    assert list(file) == [13, 0, 23, 0]


def test_gauges_take_the_place_of_what_stands_there() -> None:
    owner = Owner("gauge_max")
    owner.cells[0], owner.cells[1] = 5.0, 77.0
    file = a_file(10, 1)
    owner.waiting.move(file, [0])
    owner.waiting.sweep()
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
        owner.waiting.sweep()
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
        owner.waiting.sweep()
    assert file[0] == 5.0


def no_place(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, "full")


def test_a_room_moves_what_finds_a_place() -> None:
    room = PendingSeries()
    owners = [Owner(prefix) for prefix in ("counter", "gauge_all", "counter")]
    for owner in owners:
        owner.inc(1)
        room.add(owner.waiting)
    asked: list[str] = []
    file = a_file(0, 0)

    def only_gauges(prefix: str, keys: Any) -> tuple[Any, list[int]]:
        asked.append(prefix)
        assert keys() == ["k0"]
        return no_place() if prefix == "counter" else (file, [0])

    room.move_in(only_gauges, threading.RLock())
    assert asked == ["counter", "gauge_all"]
    empty = [room.empty]
    assert file[0] == 1.0
    counters = a_file(0, 0)
    room.move_in(lambda *_: (counters, [0]), threading.RLock())
    assert [*empty, room.empty] == [False, True]
    assert counters[0] == 2.0


def test_a_room_looks_after_what_moved_once_more() -> None:
    room, owner, file = PendingSeries(), Owner("counter"), a_file(0, 0)
    room.add(owner.waiting)
    private = owner.cells
    room.move_in(lambda *_: (file, [0]), threading.RLock())
    private[0] += 1.0
    assert file[0] == 0.0
    room.move_in(no_place, threading.RLock())
    assert file[0] == 1.0


def test_a_room_takes_in_while_it_moves() -> None:
    room, late = PendingSeries(), Owner("histogram")
    room.add(Owner("counter").waiting)

    def places(*_: Any) -> tuple[Any, list[int]]:
        room.add(late.waiting)
        return a_file(0, 0), [0]

    room.move_in(places, threading.RLock())
    empty = [room.empty]
    room.clear()
    assert [*empty, room.empty] == [False, True]


def test_two_who_move_do_it_once() -> None:
    room = PendingSeries()
    owner, other = Owner("gauge_max"), Owner("counter")
    owner.cells[0] = 5.0
    for item in (other, owner):
        room.add(item.waiting)
    file = a_file(0, 0, 0, 0)

    def places(prefix: str, _: Any) -> tuple[Any, list[int]]:
        if prefix == "counter":
            # Meanwhile another thread moves all of it, and the gauge goes on.
            room.move_in(lambda prefix, _: (file, [2] if prefix == "counter" else [0]), threading.RLock())
            owner.cells[owner.indexes[0]] = 7.0
        return file, [2] if prefix == "counter" else [0]

    lock = threading.RLock()
    other.inc(1)
    room.move_in(places, lock)
    assert room.empty
    assert (file[0], file[2]) == (7.0, 1.0)


def test_threads_lose_nothing_to_a_move() -> None:
    for _ in range(20):
        owner = Owner("counter")
        room = PendingSeries()
        room.add(owner.waiting)
        file = a_file(0, 0)
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
        room.move_in(lambda *_, file=file: (file, [0]), threading.RLock())
        for thread in threads:
            thread.join()
        room.move_in(no_place, threading.RLock())
        assert file[0] == 8000


def test_trouble_is_told_once_an_episode() -> None:
    errors = StoreErrors()
    told: list[str] = []
    for episode in (1, 2):
        for _ in range(3):
            errors.note(OSError(errno.ENOSPC, "No space left", "/store/file"), None)
        errors.log_once(None)
        errors.log_once(told.append)
        errors.log_once(told.append)
        assert len(told) == episode
        errors.over()
    errors.note(OSError(errno.ENOSPC, "No space left"), None)
    errors.inherited()
    errors.log_once(told.append)
    assert len(told) == 2
    assert "No space left: /store/file" in told[0]
