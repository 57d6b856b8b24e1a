"""One deadline at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls a function after some seconds, unless it is set anew or cancelled before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float, then: Callable[[], None]) -> None:
        """Call ``then`` after ``seconds``, in place of what was to be called."""
        self.cancel()
        self._timer = self._loop.call_later(seconds, then)

    def cancel(self) -> None:
        """Call nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
