"""Keeps links to the application's files in the directories where stock readers of prometheus_client look.

``PROMETHEUS_MULTIPROC_DIR`` names such a client directory. It is not the store, because code written for
prometheus_client alone may wipe it, remove it, or replace files in it at any moment. :class:`ClientLinks` repairs it
about once a second.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from promgun.store.client_claim import Standing, claim, give_up_claim, is_old_master_s, own_clients
from promgun.store.folder_states import FolderStates
from promgun.store.link_names import KINDS, LINK, link_name
from promgun.store.ownership import has_ended
from promgun.store.run_directory import RunDirectory
from promgun.store.tended import Tended

_SLOT_FILE = re.compile(rf"(\d{{1,6}}|folded)\.({KINDS})")
_MASTER_FILE = re.compile(rf"(m\d{{1,3}})\.({KINDS})")
#: Links of live gauges are checked for an owner in every fifth call, and when they are made.
_LIVE_EVERY = 5
_TEMPORARY = re.compile(rf"\.new-{LINK.pattern}")


def link_file(run: RunDirectory, target: Path, owner: str, kind: str) -> None:
    """Link a value file into the client directories; ``owner`` is as in :func:`link_name`. Never raises.

    It is a hard link, or a symbolic one across file systems. It is made under a temporary name and then renamed, so it
    appears complete; a link of that name to another file is replaced.
    """
    for client in own_clients(run):
        _link(client, target, link_name(owner, kind), symbolic=False)


def unlink_file(run: RunDirectory, owner: str, kind: str) -> None:
    """Remove the links to a value file from the client directories; never raises."""
    for client in own_clients(run):
        with contextlib.suppress(OSError):
            os.unlink(client / link_name(owner, kind))


class _Made:
    NOTHING, LINK, FAILED = range(3)


def _link(client: Path, target: Path, name: str, *, symbolic: bool) -> int:
    path = client / name
    with contextlib.suppress(OSError):
        if os.path.samefile(path, target):
            return _Made.NOTHING
    # A fixed temporary name, so that killed processes leave at most one. Of two processes that link at once one may
    # fail, but then the other's link is there.
    temporary = client / f".new-{name}"
    with contextlib.suppress(OSError):
        os.unlink(temporary)
    try:
        _make_link(target, temporary, symbolic=symbolic)
        if _is_folder(path):
            # Nobody else gives a folder this name: it can only have been put in the place of one of our files.
            os.rmdir(path)
        os.replace(temporary, path)
    except OSError:
        return _Made.FAILED
    finally:
        # rename(2) of one hard link over another of the same file does nothing, and leaves both
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return _Made.LINK


def _make_link(target: Path, temporary: Path, *, symbolic: bool) -> None:
    if not symbolic:
        try:
            os.link(target, temporary, follow_symlinks=False)
        except FileNotFoundError:
            raise
        except OSError:
            # another file system (EXDEV), one without hard links, or the kernel protects them (EPERM)
            pass
        else:
            return
    os.symlink(target, temporary)


def _is_folder(path: Path) -> bool:
    # Not by methods of Path, which raise PermissionError (Python 3.10 to 3.13).
    return os.path.isdir(path) and not os.path.islink(path)


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
        for name in _names(client):
            path, target = client / name, wanted.get(name)
            if not _TEMPORARY.fullmatch(name) and (not LINK.fullmatch(name) or _same(path, target)):
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
        links: dict[int, list[Path]] = {_Made.NOTHING: [], _Made.LINK: [], _Made.FAILED: []}
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
                done = _link(client, target, name, symbolic=target.parent == self.run.master)
                if done == _Made.LINK and self._linked.get(path) == identity:
                    restored.append(path)
                else:
                    links[done].append(path)
                if done != _Made.FAILED:
                    self._linked[path] = identity
            _remove_dead(client, wanted)
        for path in self._linked.keys() - present:
            del self._linked[path]
        if anothers is not None and is_old_master_s(anothers):
            anothers = None
        return Tended(tuple(remade), tuple(restored), tuple(links[_Made.LINK]), tuple(links[_Made.FAILED]), anothers)

    def _claim(self) -> Path | None:
        """Return the client directory that another run has, if there is one; take over one that is free."""
        standing, client = claim(self.run), self.run.second_client
        if client is None or standing in {Standing.OURS, Standing.FREE}:
            return None
        if standing is Standing.TAKEN:
            self._remove_stale(client)
            return None
        for name, target in self._wanted().items():
            _unlink_if_same(client / name, target)
        return client

    def _is_left_unlinked(self, path: Path, target: Path) -> bool:
        """Whether a file has live gauges of an ended process, which readers must not see any more: its link goes."""
        slot, _, kind = target.name.partition(".")
        if not (slot.isdigit() and kind.startswith("gauge_live")):
            return False
        linked = _same(path, target)
        if (linked and self._calls % _LIVE_EVERY) or not has_ended(self.run, int(slot)):
            return False
        if linked:
            _unlink_if_same(path, target)
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
        for folder, pattern in ((self.run.slots, _SLOT_FILE), (self.run.master, _MASTER_FILE)):
            for name in _names(folder):
                match = pattern.fullmatch(name)
                if match is not None:
                    wanted[link_name(match[1], match[2])] = folder / name
        return wanted


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


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


def _same(path: Path, target: Path | None) -> bool:
    try:
        return target is not None and os.path.samefile(path, target)
    except OSError:
        return False


def _remove_dead(client: Path, wanted: Collection[str]) -> None:
    """Remove links whose file is gone: stock readers fail at a symbolic one, and a hard one has an ended run's values.

    Other links of ours that are not ``wanted`` are left: they may be newer than that list.
    """
    for name in _names(client):
        if name not in wanted and LINK.fullmatch(name):
            path = client / name
            with contextlib.suppress(OSError):
                if not path.exists() if path.is_symlink() else path.stat().st_nlink == 1:
                    os.unlink(path)


def _unlink_if_same(path: Path, target: Path) -> None:
    if _same(path, target):
        with contextlib.suppress(OSError):
            os.unlink(path)


def link_masters(run: RunDirectory) -> None:
    """Link the application's metrics of masters (``--preload``), symbolically; never raises."""
    for name in _names(run.master):
        match = _MASTER_FILE.fullmatch(name)
        if match is not None:
            for client in own_clients(run):
                _link(client, run.master / name, link_name(match[1], match[2]), symbolic=True)


def remove_links(run: RunDirectory) -> None:
    """Remove the links in the second client directory, and the claim on it, before the run's files are removed.

    Never raises. Does nothing as another user than the workers', who may have put anything there.
    """
    client = run.second_client
    if client is None or not run.is_open_to_me:
        return
    for folder in (run.slots, run.master):
        for name in _names(folder):
            match = _SLOT_FILE.fullmatch(name) or _MASTER_FILE.fullmatch(name)
            if match is not None:
                _unlink_if_same(client / link_name(match[1], match[2]), folder / name)
    give_up_claim(run)
