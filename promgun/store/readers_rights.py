"""Whose rights a store is read with: root does not parse files that another user can have written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from promgun.store.run_directory import SLOTS
from promgun.store.run_places import INNER
from promgun.system.safe_open import opened_folder


@dataclass(frozen=True, slots=True)
class Rights:
    """A user, and one group of theirs."""

    uid: int
    gid: int


def rights_to_read(path: Path) -> Rights | None:
    """Return whose rights root should read a store with: those of the user who can write below it.

    ``path`` is the store or a directory that contains it. Returns ``None`` when the process may read with its own
    rights, because it is not root's or because only root can write there. Never raises.
    """
    if os.geteuid() != 0:
        return None
    return next((rights for rights in _owners(path) if rights.uid), None)


def _owners(path: Path) -> Iterator[Rights]:
    """Yield the owners of a store's parts, workers first: the owner of a folder decides what stands below it."""
    for folder in (path / INNER / SLOTS, path / SLOTS, path / INNER, path):
        with suppress(OSError), opened_folder(folder, follow=folder == path) as fd:
            status = os.fstat(fd)
            yield Rights(status.st_uid, status.st_gid)
