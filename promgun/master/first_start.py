"""Decides when a master starts its first metrics process: once a worker has booted.

The process takes about as much CPU to start as the rest of the server. On a machine whose cores are busy, workers that
boot at the same moment would wait for it. Its listeners are bound long before, so an early scrape waits in the backlog.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from promgun.store.board import Cell
from promgun.store.run_directory import RunDirectory
from promgun.store.run_reader import read_slot_board

#: Seconds from the first question on after which the process starts although no worker has booted.
_LONGEST = 0.5
#: Seconds between two questions.
_PAUSE = 0.02


class FirstStart:
    """Whether the time has come to start the first metrics process; once it has, it stays so."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = 0.0
        self._is_due = False

    def is_due(self, directory: RunDirectory, workers: Iterable[Any]) -> bool:
        """Return whether one of the workers has booted, there is none, or there was time enough. Never raises."""
        if not self._is_due:
            self._until = self._until or self._clock() + _LONGEST
            numbers = [worker.slot.number for worker in workers if getattr(worker, "slot", None) is not None]
            self._is_due = (
                self._clock() >= self._until or not numbers or any(_has_booted(directory, number) for number in numbers)
            )
        return self._is_due

    @property
    def is_over(self) -> bool:
        """Whether the first metrics process need not wait any more, or nobody has asked for one."""
        return self._is_due or not self._until

    def pause(self, timeout: float) -> float:
        """Return how long the loop may wait for signals where Gunicorn would wait for ``timeout`` seconds."""
        return timeout if self.is_over else min(timeout, _PAUSE)


def _has_booted(directory: RunDirectory, number: int) -> bool:
    board = read_slot_board(directory, number)
    return board is not None and board[Cell.BOOTED] > 0
