"""How late a loop is: counted once whoever notices, shown for a window and the next, and nothing wakes an idle loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from promgun.collect.slot_owners import loop_lag
from promgun.store.board import LAG_WINDOW, Board, Cell
from promgun.workers._loop_lag import LoopLag, beating

SECOND = 1_000_000_000


class Loop:
    """A loop with a clock that is moved by hand, and the timers that were set."""

    def __init__(self, *, timers: bool = True) -> None:
        self.now = 100 * LAG_WINDOW
        self.board = Board()
        self.running = False
        self.timers: list[tuple[int, Callable[[], None]]] = []
        self.lag = LoopLag(self.board, lambda: self.running, self.set if timers else None, lambda: self.now)

    def set(self, seconds: float, call: Callable[[], None]) -> None:
        """Set a timer."""
        self.timers.append((self.now + round(seconds * SECOND), call))

    def sleep(self, seconds: float, blocked: float = 0.0) -> None:
        """Let time pass and run what is due; at the end the loop is blocked for some of it."""
        end = self.now + round(seconds * SECOND)
        free = end - round(blocked * SECOND)
        while self.timers and self.timers[0][0] <= end:
            due, call = self.timers.pop(0)
            self.now = max(self.now, due) if due <= free else end
            call()
        self.now = end

    @property
    def late(self) -> float:
        """Seconds that were counted."""
        return (self.board.cells[Cell.LOOP_LATE] - 1) / SECOND

    @property
    def shown(self) -> float | None:
        """The largest lateness that the page shows now."""
        return loop_lag(self.board.view(0), self.now)


def test_a_loop_that_is_on_time_is_not_late() -> None:
    loop = Loop()
    loop.lag.touch()
    loop.running = True
    loop.sleep(5)
    assert (loop.late, loop.shown) == (0, 0)


def test_the_heartbeat_is_marked_while_the_timer_is_set() -> None:
    loop = Loop()
    marks: list[int] = []
    loop.lag.mark = lambda: marks.append(loop.now)
    notify = beating(lambda: None, loop.lag)
    notify()
    assert marks == []
    loop.lag.touch()
    loop.running = True
    loop.sleep(0.5)
    loop.lag.touch()
    assert len(marks) == 1
    notify()
    assert len(marks) == 2


def test_no_timer_is_set_once_nothing_runs() -> None:
    loop = Loop()
    loop.lag.touch()
    loop.lag.touch()
    assert len(loop.timers) == 1
    # The first finds that something ran since it was set, the second that nothing did.
    loop.sleep(0.25)
    assert loop.timers == []
    loop.running = True
    loop.lag.touch()
    loop.sleep(3)
    assert len(loop.timers) == 1
    loop.running = False
    loop.sleep(0.25)
    assert loop.timers == []
    assert loop.board.cells[Cell.LOOP_DUE] == 0


def test_a_block_is_shown_while_it_lasts_and_counted_once_when_it_ends() -> None:
    loop = Loop()
    loop.lag.beat(1.0)
    loop.lag.touch()
    loop.now += 3 * SECOND
    assert loop.shown == pytest.approx(2.9)
    assert loop.late == 0
    # Both the timer and the heartbeat are late.
    loop.sleep(0)
    loop.lag.beat(1.0)
    assert loop.late == pytest.approx(2.9)
    assert loop.shown == pytest.approx(2.9)


def test_an_idle_loop_that_is_blocked_is_late_with_its_heartbeat() -> None:
    loop = Loop(timers=False)
    loop.lag.beat(1.0)
    loop.now += 4 * SECOND
    assert loop.shown == pytest.approx(3)
    loop.lag.beat(1.0)
    assert (loop.late, loop.shown) == (3, 3)
    loop.now += SECOND // 2
    loop.lag.beat(1.0)
    assert loop.late == 3
    loop.lag.last_beat()
    loop.now += 10 * SECOND
    assert loop.shown == 3


def test_the_largest_is_shown_until_the_next_window_is_over() -> None:
    loop = Loop(timers=False)
    loop.lag.beat(1.0)
    loop.now += 3 * SECOND
    loop.lag.beat(100.0)
    loop.now += 10 * SECOND
    loop.lag.beat(100.0)
    assert loop.shown == 2
    loop.now += LAG_WINDOW
    assert loop.shown == 2
    loop.lag.beat(100.0)
    assert loop.shown == 2
    loop.now += LAG_WINDOW
    assert loop.shown == 0
    loop.lag.beat(100.0)
    assert loop.shown == 0
    assert loop.late == 2


def test_each_window_has_a_largest_of_its_own() -> None:
    loop = Loop(timers=False)
    loop.lag.beat(5 * LAG_WINDOW / SECOND)
    loop.now += 5 * LAG_WINDOW + 3 * SECOND
    loop.lag.beat(LAG_WINDOW / SECOND)
    assert loop.shown == 3
    loop.now += LAG_WINDOW + SECOND
    loop.lag.beat(1.0)
    assert loop.shown == 3  # of the window before
    assert [loop.board.cells[cell] / SECOND for cell in (Cell.LOOP_LARGEST_BEFORE, Cell.LOOP_LARGEST)] == [3, 1]
    assert loop.late == 4


def test_a_worker_without_a_loop_shows_none() -> None:
    assert loop_lag(Board().view(0), 5) is None
