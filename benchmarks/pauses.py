"""What a worker does once in a while goes by the time of its own turns, where workers take turns.

A worker's heartbeat is due every 10 ms, its figures once a second, and about 100 of a second's requests have their CPU
time measured. If the time counted in which others have their turn, a batch of 40 requests would have what belongs to
some thousand of them.
"""

from __future__ import annotations

import time
from typing import Any

#: Seconds after which a worker has chosen how many requests have their CPU time measured: each, in the first second.
UNTIL_SETTLED = 2.2


class Pause:
    """A time in which others have their turn; it does not count for a worker of ours. Plain ones lack such clocks."""

    def __init__(self, worker: Any) -> None:
        accounting, arrivals = getattr(worker, "accounting", None), getattr(worker, "observe_arrival", None)
        clocks = (
            (worker, "_update_at"),
            (worker, "_next_beat_at"),
            (accounting, "_looked_at"),
            (arrivals, "ask_at"),
            (arrivals, "pause_ends"),
        )
        self._clocks = [(owner, name) for owner, name in clocks if hasattr(owner, name)]
        self._began = 0

    def begin(self) -> None:
        """Let others have their turn from now on."""
        self._began = time.monotonic_ns()

    def end(self) -> None:
        """Go on: what is due is due later by the time that has passed."""
        passed = time.monotonic_ns() - self._began
        for owner, name in self._clocks:
            setattr(owner, name, getattr(owner, name) + passed)
