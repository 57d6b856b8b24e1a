"""Measures how late a worker's event loop, or the hub of its greenlets, does what is due because something blocks it.

Two things tell. The heartbeat, which such workers send once a second, tells of an idle one. While a request or a
message of a websocket runs, a timer is due every tenth of a second; it is set when one begins, and not set anew once
nothing ran since the last one, so it wakes no idle process. uvicorn's server looks at its state every tenth of a second
itself, so nothing is added there. Each lateness is counted once, whichever of them was late.

When the next of them is due is on the board: the master sees while it happens that a loop is blocked. It reads the
board of a worker whose heartbeat is late, or marked: the timer is set, so that a request may block the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from promgun.store.board import LAG_WINDOW, Board, Cell
from promgun.workers._accounting import RequestAccounting
from promgun.workers._request_state import RequestState

#: Calls a function after so many seconds.
CallLater = Callable[[float, Callable[[], None]], object]

_SECOND = 1_000_000_000
_INTERVAL = 0.1
#: What is later by less, in nanoseconds, is as punctual as timers are.
_GRAIN = 5_000_000
_DUE, _WINDOW = int(Cell.LOOP_DUE), int(Cell.LOOP_WINDOW)
_LARGEST, _BEFORE, _LATE = int(Cell.LOOP_LARGEST), int(Cell.LOOP_LARGEST_BEFORE), int(Cell.LOOP_LATE)


class LoopLag:
    """The lateness of one worker's loop, written to its board; all methods are called on the loop.

    ``runs`` tells whether a request is running. ``call_later`` sets a timer of the loop; without it only
    :meth:`beat` measures. ``mark`` marks the heartbeat while the timer is set.
    """

    __slots__ = ("_beat_due", "_board", "_call_later", "_clock", "_due", "_runs", "_seen", "armed", "mark", "ran")

    def __init__(
        self,
        board: Board,
        runs: Callable[[], bool] = lambda: False,
        call_later: CallLater | None = None,
        clock: Callable[[], int] = monotonic_ns,
        mark: Callable[[], None] = lambda: None,
    ) -> None:
        self._board = board
        self.mark = mark
        self._runs = runs
        self._call_later = call_later
        self._clock = clock
        self._due = self._beat_due = self._seen = 0
        #: whether the timer is set, and whether something ran since it was
        self.armed = call_later is None
        self.ran = False
        cells: Any = board.cells
        cells[_WINDOW] = clock() // LAG_WINDOW + 1
        # Of the slot: the number is shown from its first such owner on.
        cells[_LATE] = max(1, cells[_LATE])

    def beat(self, seconds: float) -> None:
        """Note that the loop came to a step of its own, and that the next one is due in so many seconds."""
        now = self._clock()
        if self._beat_due:
            self._measure(now, self._beat_due)
        self._beat_due = now + int(seconds * _SECOND)
        if not self.armed or self._call_later is None:
            self._board.cells[_DUE] = self._beat_due

    def last_beat(self) -> None:
        """Expect no further steps: the worker stops serving."""
        self._beat_due = 0
        if not self.armed or self._call_later is None:
            self._board.cells[_DUE] = 0

    def touch(self) -> None:
        """Note that a request, or a message, begins to run."""
        self.ran = True
        if not self.armed:
            self.arm()

    def arm(self) -> None:
        """Set the timer."""
        self.armed = True
        self._set()
        self.mark()

    def _set(self) -> None:
        assert self._call_later is not None  # noqa: S101 - it is always armed without one
        self._due = self._clock() + int(_INTERVAL * _SECOND)
        self._board.cells[_DUE] = self._due
        self._call_later(_INTERVAL, self._fired)

    def _fired(self) -> None:
        self._measure(self._clock(), self._due)
        if self.ran or self._runs():
            self.ran = False
            self._set()
        else:
            self.armed = False
            self._board.cells[_DUE] = self._beat_due

    def _measure(self, now: int, due: int) -> None:
        late = now - due
        cells: Any = self._board.cells
        if late > _GRAIN:
            cells[_LATE] += now - max(due, self._seen)
        self._seen = now
        window = now // LAG_WINDOW + 1
        if cells[_WINDOW] != window:
            cells[_BEFORE] = cells[_LARGEST] if cells[_WINDOW] == window - 1 else 0
            cells[_LARGEST] = 0
            cells[_WINDOW] = window
        cells[_LARGEST] = max(cells[_LARGEST], late)


class LoopAccounting(RequestAccounting):
    """Accounting on a loop whose lateness is measured, in ``lag``, while requests run."""

    __slots__ = ("lag",)

    lag: LoopLag
    regions_are_own = True

    def new_state(self) -> RequestState:
        """Return the state of a request that begins."""
        lag = self.lag
        lag.ran = True
        if not lag.armed:
            lag.arm()
        return RequestState()

    def runs(self) -> bool:
        """Whether a request is running, of those that the table of running requests has."""
        return self.running.any_listed


def loop_timer(seconds: float, call: Callable[[], None]) -> None:
    """Call a function after so many seconds in the loop of asyncio that runs."""
    import asyncio  # noqa: PLC0415 - workers without such a loop do not import it

    asyncio.get_running_loop().call_later(seconds, call)


def beating(notify: Callable[[], None], lag: LoopLag) -> Callable[[], None]:
    """Return ``notify``, which a worker calls once a second, with a beat of ``lag`` after it."""

    def notify_and_beat() -> None:
        notify()
        lag.beat(1.0)
        if lag.armed:
            lag.mark()

    return notify_and_beat
