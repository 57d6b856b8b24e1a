"""Defers signals that reach a forked worker before it has its own signal handlers.

Until then the child has the master's handlers, which put the signal into the child's copy of the master's queue
(gunicorn 25.3 to 27.0). Nobody reads it there, so a stop or a reload would take the whole graceful timeout. The signals
are blocked only around the fork, not until the handlers are set: a process started by a ``post_fork`` hook would
inherit the mask and ignore SIGTERM.

The ``pre_fork`` hook may fork processes of its own: none of them is the worker that Gunicorn forks next. It makes the
worker object, calls the hook and forks (25.3 to 27.0 ``Arbiter.spawn_worker``). A child of the hook would get the
worker's slot and defer its signals; the worker would take another slot, unknown to its master.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from promgun.store.process import STORE

DEFERRED = frozenset({signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGABRT, signal.SIGUSR1})
#: What ``Worker.__init__`` sets as ``pid`` (gunicorn 25.3 to 27.0); the arbiter replaces it right after the fork.
_NOT_FORKED = "[booting]"


class DeferredSignals:
    """The signals that reached this worker too early; installed once, in the master."""

    def __init__(self) -> None:
        self._worker: Any = None
        self._mask: set[signal.Signals | int] | None = None
        self._received: list[int] = []

    def install(self) -> None:
        """Act at every fork of a worker from now on."""
        os.register_at_fork(before=self._block, after_in_parent=self._unblock, after_in_child=self._defer)

    def expect_fork(self, worker: Any) -> None:
        """Expect ``worker`` to be forked: until it has a pid, any fork of this process may be its, except while
        :meth:`withheld`.
        """
        self._worker = worker

    @contextmanager
    def withheld(self) -> Iterator[None]:
        """Expect no fork of a worker in the meantime: other children keep the signals that they inherit."""
        expected, self._worker = self._worker, None
        try:
            yield
        finally:
            self._worker = expected

    def _block(self) -> None:
        if self._worker is not None and self._worker.pid == _NOT_FORKED:
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, DEFERRED)

    def _unblock(self) -> None:
        if self._mask is not None:
            # It is forked: kept here, it would keep its slot until the next worker of the master's is expected.
            self._worker = None
            mask, self._mask = self._mask, None
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _defer(self) -> None:
        self._worker = None
        if self._mask is not None:
            for number in DEFERRED:
                signal.signal(number, self._receive)
            self._unblock()

    def _receive(self, number: int, _frame: Any) -> None:
        self._received.append(number)

    def deliver(self) -> None:
        """Send this process the deferred signals, once its own handlers are set."""
        received, self._received = self._received, []
        for number in received:
            signal.raise_signal(number)


DEFERRED_SIGNALS = DeferredSignals()


class GuardedHook:
    """Calls a ``pre_fork`` hook and meanwhile gives no child what is for the worker; else it is as the hook itself."""

    def __init__(self, hook: Any) -> None:
        self.__wrapped__ = hook

    def __call__(self, server: Any, worker: Any) -> Any:
        """Call the hook."""
        with STORE.withhold_reservation(), DEFERRED_SIGNALS.withheld():
            return self.__wrapped__(server, worker)

    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":
            # not made yet: a copy or a pickle asks
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)


def guard_pre_fork(cfg: Any) -> None:
    """Guard the ``pre_fork`` hook of a Gunicorn ``Config``, once."""
    setting = cfg.settings["pre_fork"]
    # Not by ``set``, which would examine the hook again.
    if not isinstance(setting.value, GuardedHook):
        setting.value = GuardedHook(setting.value)
