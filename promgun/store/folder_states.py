"""Tells whether directories have stayed as they were, by one stat(2) each instead of a listing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from promgun.store.folder_listing import SETTLED_NS


class FolderStates:
    """Remembers directories as they were at the last call."""

    def __init__(self) -> None:
        #: ``None`` if they may have changed since without another time
        self._seen: tuple[tuple[int, int, int] | None, ...] | None = None

    def unchanged(self, folders: Iterable[str | Path]) -> bool:
        """Return whether no name in the directories has come, gone or been given to another file since the last call.

        ``False`` where that is not certain. Never raises.
        """
        # Another change in the same tick of the kernel's clock leaves the time as it is.
        settled = time.time_ns() - SETTLED_NS
        states = tuple(map(_state, folders))
        before = self._seen
        self._seen = states if all(state is not None and state[2] < settled for state in states) else None
        return states == before


def _state(folder: str | Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
