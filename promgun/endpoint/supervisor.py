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
#: Seconds to wait after an attempt before the next one, by how many processes in a row could not be started or lived
#: for less than ``_SHORT_LIFE`` seconds.
_BACK_OFF = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SHORT_LIFE = 10.0
#: The most seconds to wait after somebody killed the process, if an earlier one lived for ``_SHORT_LIFE`` seconds: it
#: can serve. One that crashes may not be able to.
_AFTER_KILL = 0.5
#: This many ends in a row are logged one by one; after that one line a minute says for how long nothing has been
#: served.
_LOGGED = 3
_MINUTE = 60.0
#: Seconds after which a process that still runs is taken to serve.
_SERVES = 2.0


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
        self._short_lives = 0
        self._next_start = 0.0
        self._has_lived = False
        self._logged_at = 0.0
        #: since when nothing has been served, and why; 0 while something is
        self._down_since = 0.0
        self._reason = ""

    @property
    def pid(self) -> int:
        """The child's pid, 0 when there is none."""
        return self._child.pid if self._child is not None else 0

    def ensure(self) -> None:
        """Start the child if there is none and the back-off is over; say once a minute that nothing is served."""
        self._log_outage()
        if self._child is not None or not self.listeners or self._clock() < self._next_start:
            return
        self._started = self._clock()
        try:
            self._child = spawn(self.config, self.listeners)
        except OSError as error:
            self._schedule(f"The metrics process cannot be started: {error}", killed=False)

    def reap(self) -> None:
        """Reap a child that has ended, before Gunicorn's ``waitpid(-1)`` can.

        Up to 26.0 Gunicorn halts the server when any child exits with 3 or 4 (issue 3566).
        """
        if self._child is None:
            return
        status = self._child.poll()
        if status is None:
            return
        reason = f"The metrics process (pid:{self.pid}) ended with status {status}; starting another"
        self._child = None
        self._schedule(reason, killed=self._has_lived and status in {-signal.SIGKILL, -signal.SIGTERM})

    def _schedule(self, reason: str, *, killed: bool) -> None:
        now = self._clock()
        if now - self._started >= _SHORT_LIFE:
            self._short_lives = 0
            self._has_lived = True
        else:
            self._short_lives += 1
        pause = _BACK_OFF[min(self._short_lives, len(_BACK_OFF)) - 1 if self._short_lives else 0]
        self._next_start = now + (min(pause, _AFTER_KILL) if killed else pause)
        self._reason = reason
        self._down_since = self._down_since or now
        if self._short_lives <= _LOGGED:
            self._logged_at = now
            self._log.warning("%s", reason)

    def _log_outage(self) -> None:
        now = self._clock()
        if self._child is not None and now - self._started >= _SERVES:
            self._down_since = 0.0
        elif self._down_since and now - self._logged_at >= _MINUTE:
            self._logged_at = now
            self._log.warning(
                "No metrics have been served for %.0f s, in spite of %s starts in a row: %s",
                now - self._down_since,
                self._short_lives,
                self._reason,
            )

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
        self._short_lives = 0
        self._has_lived = False
        self._next_start = self._down_since = 0.0
        self.ensure()
