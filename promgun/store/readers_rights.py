"""With whose rights a store is read: root does not parse what another user could have written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from promgun.store.run_directory import SLOTS
from promgun.store.run_places import INNER
from promgun.system.safe_open import open_directory


@dataclass(frozen=True, slots=True)
class Rights:
    """A user and the one group of theirs that counts."""

    uid: int
    gid: int


def rights_to_read(path: Path) -> Rights | None:
    """Return with whose rights root reads the store that ``path`` is or has in it: those of the user who writes below
    it. ``None``: with one's own, because this process is not root's or only root can write there. Never raises.
    """
    if os.geteuid() != 0:
        return None
    return next((rights for rights in _owners(path) if rights.uid), None)


def _owners(path: Path) -> Iterator[Rights]:
    """Yield who owns the parts of a store, workers first: whoever owns a folder decides what stands below it."""
    for folder in (path / INNER / SLOTS, path / SLOTS, path / INNER, path):
        with suppress(OSError), open_directory(folder, follow=folder == path) as fd:
            status = os.fstat(fd)
            yield Rights(status.st_uid, status.st_gid)
