"""Signals between the fork of a worker and its own handlers: kept for it, where Gunicorn loses them.

Until then the child has the master's handlers, which put a signal into its copy of the master's queue (gunicorn 25.3 to
27.0): a stop or a reload would wait for the whole graceful timeout. They are not merely blocked for so long, because a
process that a ``pre_fork`` or ``post_fork`` hook starts would inherit that and could not be stopped.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

AWAITED = frozenset({signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGABRT, signal.SIGUSR1})


class HeldSignals:
    """What came for this worker before it could hear; installed once, in the master."""

    def __init__(self) -> None:
        self._mask: set[signal.Signals | int] | None = None
        self._held: list[int] = []

    def install(self) -> None:
        """Act at every fork of a worker from now on, and at no other."""
        os.register_at_fork(before=self._block, after_in_parent=self._unblock, after_in_child=self._hold)

    def _block(self) -> None:
        caller = sys._getframe(1)  # noqa: SLF001 - who forks: the arbiter, or a hook of the user's
        while caller.f_back is not None and caller.f_globals.get("__name__", "").startswith("gevent."):
            # An application that is preloaded may have put gevent's fork in place of the one in os.
            caller = caller.f_back
        if caller.f_code.co_name == "spawn_worker" and caller.f_globals.get("__name__") == "gunicorn.arbiter":
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)

    def _unblock(self) -> None:
        if self._mask is not None:
            mask, self._mask = self._mask, None
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _hold(self) -> None:
        if self._mask is not None:
            for number in AWAITED:
                signal.signal(number, self._keep)
            self._unblock()

    def _keep(self, number: int, _frame: Any) -> None:
        self._held.append(number)

    def release(self) -> None:
        """Give the worker what came for it; its own handlers are set."""
        held, self._held = self._held, []
        for number in held:
            signal.raise_signal(number)


HELD_SIGNALS = HeldSignals()
