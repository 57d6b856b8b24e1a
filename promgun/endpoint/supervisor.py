"""Keeps the metrics process running: starts it, reaps it by pid, starts another after a back-off, stops it last."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from promgun.endpoint.process import STOP_SIGNAL, EndpointConfig, spawn

_STOP_TIME = 2.0
#: Seconds to wait before another start, by how many processes in a row ended young.
_BACK_OFF = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_YOUNG = 10.0


class MetricsProcess:
    """One child that serves the metrics listeners; all methods are for the master's main loop only."""

    def __init__(
        self,
        config: EndpointConfig,
        listeners: Sequence[socket.socket],
        log: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.listeners = tuple(listeners)
        self._log = log
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._ended_young = 0
        self._next_start = 0.0

    @property
    def pid(self) -> int:
        """The child's pid, 0 when there is none."""
        return self._child.pid if self._child is not None else 0

    def ensure(self) -> None:
        """Start the child if there is none and the back-off is over."""
        if self._child is not None or not self.listeners or self._clock() < self._next_start:
            return
        try:
            self._child = spawn(self.config, self.listeners)
        except OSError as error:
            self._log.warning("The metrics process cannot be started: %s", error)
            self._schedule()
            return
        self._started = self._clock()

    def reap(self) -> None:
        """Reap a child that has ended, before Gunicorn's ``waitpid(-1)`` can.

        Up to 26.0 Gunicorn halts the server when any child exits with 3 or 4 (issue 3566).
        """
        if self._child is None:
            return
        status = self._child.poll()
        if status is None:
            return
        self._log.warning("The metrics process (pid:%s) ended with status %s; starting another", self.pid, status)
        self._child = None
        self._schedule()

    def _schedule(self) -> None:
        now = self._clock()
        self._ended_young = self._ended_young + 1 if now - self._started < _YOUNG else 0
        self._next_start = now + _BACK_OFF[min(self._ended_young, len(_BACK_OFF)) - 1 if self._ended_young else 0]

    def stop(self) -> None:
        """End the child: running answers get a moment to finish."""
        child, self._child = self._child, None
        if child is None:
            return
        child.send_signal(STOP_SIGNAL)
        try:
            child.wait(_STOP_TIME)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()

    def restart(self, config: EndpointConfig, listeners: Sequence[socket.socket]) -> None:
        """Stop the child and start one with another configuration and other listeners."""
        self.stop()
        self.config = config
        self.listeners = tuple(listeners)
        self._ended_young = 0
        self._next_start = 0.0
        self.ensure()
