"""The CPU time of requests, where the thread that serves one serves no other meanwhile (sync, gthread).

The thread's clock is read when a request begins and when it is answered: two system calls, which are most of what this
costs. Accounting without it does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time_ns
from typing import Any

from promgun.metrics.instruments import Instruments
from promgun.workers._accounting import RequestAccounting
from promgun.workers._request_state import RequestState

_SECOND = 1_000_000_000


def _state_with_cpu() -> RequestState:
    state = RequestState()
    state.cpu = thread_time_ns()
    return state


class CpuAccounting(RequestAccounting):
    """Counts the CPU time of answered requests as well; for workers that answer a request in the thread it began in."""

    __slots__ = ("count_cpu",)

    new_state = staticmethod(_state_with_cpu)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        instruments: Instruments = args[1]
        self.count_cpu: Callable[..., None] = instruments.recorder.count_cpu

    def answered(self, req: Any, state: RequestState, status: int, sent: int) -> None:
        """Count a request that was answered with ``status`` and ``sent`` bytes of body, and its CPU time."""
        began = state.cpu
        spent = (thread_time_ns() - began) / _SECOND if began else 0.0
        RequestAccounting.answered(self, req, state, status, sent)
        # Less than nothing: another thread than the one that began it has answered.
        if spent > 0:
            self.count_cpu(state.route, spent)

    def forget_parent(self) -> None:
        """Stop counting, in a child forked by the application during a request."""
        super().forget_parent()
        self.count_cpu = self.record
