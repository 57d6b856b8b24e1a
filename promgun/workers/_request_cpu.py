"""The CPU time of requests, where the thread that serves one serves no other meanwhile (sync, gthread).

The thread's clock is read when a request begins and when it is answered. Each read is a system call of 0.3 µs or more,
up to 3 µs on virtual machines. A worker that serves at most 100 requests a second reads it for each of them. Beyond
that it reads it for one in ``k`` at random, whose time counts ``k`` times; ``k`` is chosen once a second.

Each request is measured with the probability ``1 / k``, whatever came before: the numbers of requests in between are
drawn from the geometric distribution. So the sum of each route is right on average, also where routes take turns, and
when ``k`` changes. Accounting without this class reads no clock of a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log
from random import Random
from time import thread_time_ns
from typing import Any

from promgun.workers._accounting import RequestAccounting
from promgun.workers._request_state import RequestState

_SECOND = 1_000_000_000
#: About how many requests a second are measured; up to 1.5 times as many, because ``k`` is a whole number.
_MEASURED_A_SECOND = 100

_answered = RequestAccounting.answered


class CpuAccounting(RequestAccounting):
    """Counts the CPU time of answered requests as well; for workers that answer a request in the thread it began in.

    ``thread_clock`` returns the nanoseconds of CPU that the calling thread has used. ``random`` says which requests are
    measured; it is not the generator of the application, which may have seeded that. One request in ``every`` is.
    """

    __slots__ = ("_drawn", "_looked_at", "_random", "_rarity", "_thread_clock", "count_cpu", "cpu_cells", "every")

    def __init__(
        self,
        *args: Any,
        thread_clock: Callable[[], int] = thread_time_ns,
        random: Random | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        recorder = args[1].recorder
        self.count_cpu: Callable[[str, float], None] = recorder.count_cpu
        cells = recorder.cpu_cells
        self.cpu_cells: Mapping[str, Any] = {} if cells is None else cells
        self._thread_clock = thread_clock
        self._random = (Random() if random is None else random).random  # noqa: S311 - chooses what to measure
        self.every = 1
        #: what the logarithm of a random number is divided by to draw a gap
        self._rarity = 0.0
        self.unmeasured = 1
        #: all that were drawn into ``unmeasured`` since the rate was looked at
        self._drawn = 1
        self._looked_at = self.clock()

    def new_state(self) -> RequestState:
        """Return the state of a request that begins, and decide whether its CPU time is measured.

        Two threads may take the same request off: then one more, or one less, is measured than drawn.
        """
        state = RequestState()
        self.unmeasured = left = self.unmeasured - 1
        if left <= 0:
            self.measure_cpu(state)
        return state

    def measure_cpu(self, state: RequestState) -> None:
        """Measure the CPU time of a request from now on."""
        state.stands_for = self.every
        self._draw()
        self.look_at_rate()
        state.cpu = self._thread_clock()

    def _draw(self) -> None:
        self.unmeasured = gap = 1 if self.every == 1 else 1 + int(log(1 - self._random()) / self._rarity)
        self._drawn += gap

    def look_at_rate(self) -> None:
        """Choose anew how many requests are measured, if a second has passed; to be called about once a second."""
        now = self.clock()
        passed = now - self._looked_at
        if passed < _SECOND:
            return
        self._looked_at = now
        begun = self._drawn - self.unmeasured
        self.every = max(1, round(begun * _SECOND / passed / _MEASURED_A_SECOND))
        self._rarity = log(1 - 1 / self.every) if self.every > 1 else 0.0
        # What is left was drawn for the former rate.
        self._drawn = 0
        self._draw()

    def answered(self, req: Any, state: RequestState, status: int, sent: int) -> None:
        """Count a request that was answered with ``status`` and ``sent`` bytes of body, and its CPU time."""
        began = state.cpu
        if not began:
            _answered(self, req, state, status, sent)
            return
        spent = self._thread_clock() - began
        _answered(self, req, state, status, sent)
        # Less than nothing: another thread than the one that began it has answered.
        if spent > 0:
            self.count_cpu(state.route, spent * state.stands_for / _SECOND)

    def counts_cpu_alone(self, state: RequestState) -> bool:
        """Count the CPU time of a request that is being answered, and return whether nothing else is seldom about it.

        Nothing is counted where there is more, or no request of its route was counted yet: ``answered`` does that.
        """
        began = state.cpu
        if not began or state.head or state.body is not None:
            return False
        route = state.route if state.carrier is None else self.named_route(state)
        if route not in self.cpu_cells:
            return False
        spent = self._thread_clock() - began
        if spent > 0:
            self.count_cpu(route, spent * state.stands_for / _SECOND)
        return True

    def forget_parent(self) -> None:
        """Stop counting, in a child forked by the application during a request."""
        super().forget_parent()
        self.count_cpu = self.record
