"""Tells whether directories have stayed as they were, by one stat(2) each instead of a listing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

#: Nanoseconds after which a change of a directory is sure to have changed its time: that moves in ticks of up to 10 ms.
_SETTLED_NS = 100_000_000


class FolderStates:
    """Remembers directories as they were at the last call."""

    def __init__(self) -> None:
        self._seen: tuple[tuple[int, int, int] | None, ...] = ()

    def unchanged(self, folders: Iterable[str | Path]) -> bool:
        """Return whether no name in the directories has come, gone or been given to another file since the last call.

        ``False`` where that is not certain. Never raises.
        """
        states = tuple(map(_state, folders))
        before, self._seen = self._seen, states
        # Another change in the same tick of the kernel's clock leaves the time as it is.
        settled = time.time_ns() - _SETTLED_NS
        return states == before and all(state is not None and state[2] < settled for state in states)


def _state(folder: str | Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
