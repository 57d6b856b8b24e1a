"""Keeps the links to the application's files in client directories: :class:`ClientLinks` repairs them about once a
second.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from promgun.store.client_claim import Standing, claim, is_old_master_s, own_clients
from promgun.store.client_links import (
    LINK,
    LinkResult,
    is_same,
    link_name,
    make_link,
    names_in,
    owner_and_kind,
    unlink_if_same,
)
from promgun.store.folder_states import FolderStates
from promgun.store.ownership import has_ended
from promgun.store.run_directory import RunDirectory
from promgun.store.tended import Tended

#: Links of live gauges are checked for an owner in every fifth call, and when they are made.
_LIVE_EVERY = 5
_LINK = re.compile(LINK)
_TEMPORARY = re.compile(rf"\.new-{LINK}")


@dataclass(slots=True, eq=False, repr=False)
class ClientLinks:
    """Maintains the client directories of a run, in a process of the workers' user. Nothing here raises."""

    run: RunDirectory
    _folders: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _linked: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _calls: int = 0
    _states: FolderStates = field(default_factory=FolderStates)

    def remove_stale(self) -> list[Path]:
        """Remove links of earlier runs and unfinished links; called once, when the first process begins to tend."""
        if not self.run.is_open_to_me:
            return []
        claim(self.run)
        return [path for client in own_clients(self.run) for path in self._remove_stale(client)]

    def _remove_stale(self, client: Path) -> list[Path]:
        removed: list[Path] = []
        wanted = self._wanted()
        for name in names_in(client):
            path, target = client / name, wanted.get(name)
            if not _TEMPORARY.fullmatch(name) and (not _LINK.fullmatch(name) or is_same(path, target)):
                continue
            if target is None and name in self._wanted():
                # Another process has made the file and its link since this one looked.
                continue
            with contextlib.suppress(OSError):
                os.unlink(path)
                removed.append(path)
        return removed

    def tend(self, *, all_links: bool = False) -> Tended:
        """Make missing links, and those that lead elsewhere, again; return what was done.

        Most calls find that no name has come or gone since the last one, and look no further, unless ``all_links`` asks
        for it.
        """
        if not self.run.is_open_to_me:
            return Tended()
        self._calls = 0 if all_links else self._calls + 1
        if self._states.unchanged((self.run.slots, self.run.master, *self.run.clients)) and self._calls % _LIVE_EVERY:
            return Tended()
        return self._tend_all()

    def _tend_all(self) -> Tended:
        anothers = self._claim()
        remade: list[Path] = []
        links: dict[int, list[Path]] = {LinkResult.NOTHING: [], LinkResult.LINK: [], LinkResult.FAILED: []}
        restored: list[Path] = []
        present = set()
        for client in [client for client in self.run.clients if client != anothers]:
            if self._tend_folder(client):
                remade.append(client)
            wanted = self._wanted()
            present |= {client / name for name in wanted}
            for name, target in wanted.items():
                identity, path = _identity(target), client / name
                if identity is None or self._is_left_unlinked(path, target):
                    continue
                done = make_link(client, target, name, symbolic=target.parent == self.run.master)
                if done == LinkResult.LINK and self._linked.get(path) == identity:
                    restored.append(path)
                else:
                    links[done].append(path)
                if done != LinkResult.FAILED:
                    self._linked[path] = identity
            _remove_dead(client, wanted)
        for path in self._linked.keys() - present:
            del self._linked[path]
        if anothers is not None and is_old_master_s(anothers):
            anothers = None
        return Tended(
            tuple(remade), tuple(restored), tuple(links[LinkResult.LINK]), tuple(links[LinkResult.FAILED]), anothers
        )

    def _claim(self) -> Path | None:
        """Return the client directory that another run has, if there is one; take over one that is free."""
        standing, client = claim(self.run), self.run.second_client
        if client is None or standing in {Standing.OURS, Standing.FREE}:
            return None
        if standing is Standing.TAKEN:
            self._remove_stale(client)
            return None
        for name, target in self._wanted().items():
            unlink_if_same(client / name, target)
        return client

    def _is_left_unlinked(self, path: Path, target: Path) -> bool:
        """Whether a file has live gauges of an ended process, which readers must not see any more: its link goes."""
        slot, _, kind = target.name.partition(".")
        if not (slot.isdigit() and kind.startswith("gauge_live")):
            return False
        linked = is_same(path, target)
        if (linked and self._calls % _LIVE_EVERY) or not has_ended(self.run, int(slot)):
            return False
        if linked:
            unlink_if_same(path, target)
        self._linked.pop(path, None)
        return True

    def _tend_folder(self, client: Path) -> bool:
        """Make a client directory again if it is gone; return whether it is a different one than last time."""
        before = self._folders.get(client)
        status = _status(client)
        gone = status is None or not stat.S_ISDIR(status.st_mode)
        if gone:
            with contextlib.suppress(OSError):
                os.unlink(client)
            with contextlib.suppress(OSError):
                os.makedirs(client, mode=0o700, exist_ok=True)
            status = _status(client)
        if status is None:
            return False
        self._folders[client] = status.st_dev, status.st_ino
        # Some file systems reuse an inode number at once, so a directory that was made here always counts as different.
        return before is not None and (gone or before != self._folders[client])

    def _wanted(self) -> dict[str, Path]:
        """Return the target of each link that should exist, by the link's name."""
        wanted = {}
        for folder, of_masters in ((self.run.slots, False), (self.run.master, True)):
            for name in names_in(folder):
                owner, kind = owner_and_kind(name)
                if owner and owner.startswith("m") is of_masters:
                    wanted[link_name(owner, kind)] = folder / name
        return wanted


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a regular file; ``None`` for anything else, symbolic links included."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _remove_dead(client: Path, wanted: Collection[str]) -> None:
    """Remove links whose file is gone: stock readers fail at a symbolic one, and a hard one has an ended run's values.

    Other links of ours that are not ``wanted`` are left: they may be newer than that list.
    """
    for name in names_in(client):
        if name not in wanted and _LINK.fullmatch(name):
            path = client / name
            with contextlib.suppress(OSError):
                if not path.exists() if path.is_symlink() else path.stat().st_nlink == 1:
                    os.unlink(path)
