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
from dataclasses import dataclass, field
from pathlib import Path

from promgun.store.link_names import KINDS, LINK, claim, link_name, marks
from promgun.store.ownership import has_ended
from promgun.store.run_directory import RunDirectory

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
    for client, mark in marks(run).items():
        _link(client, target, link_name(owner, kind, mark), symbolic=False)


def unlink_file(run: RunDirectory, owner: str, kind: str) -> None:
    """Remove the links to a value file from the client directories; never raises."""
    for client, mark in marks(run).items():
        with contextlib.suppress(OSError):
            os.unlink(client / link_name(owner, kind, mark))


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
    return path.is_dir() and not path.is_symlink()


@dataclass(frozen=True, slots=True)
class Tended:
    """What was done in the client directories.

    ``remade`` are directories, and ``restored`` links, that others had removed or replaced. ``made`` are links to new
    files, ``failed`` those that could not be made. ``shared`` is a directory that another run was in first.
    """

    remade: tuple[Path, ...] = ()
    restored: tuple[Path, ...] = ()
    made: tuple[Path, ...] = ()
    failed: tuple[Path, ...] = ()
    shared: Path | None = None

    @property
    def warning(self) -> str:
        """The text to log once for the operator; empty when nobody had removed or replaced anything."""
        if self.shared is not None:
            return (
                f"{self.shared} is another server's PROMETHEUS_MULTIPROC_DIR too: this one's files have other names "
                "there, such as counter_slot1-2f6a01c4.db; give each server a directory of its own"
            )
        touched = self.remade or self.restored
        if not touched:
            return ""
        what = (
            f"{self.remade[0]} was removed or replaced"
            if self.remade
            else f"{len(touched)} files were removed or replaced"
        )
        where = "" if self.remade else f" in {touched[0].parent}"
        return (
            f"{what}{where}, a directory that PROMETHEUS_MULTIPROC_DIR or --metrics-dir names: no metrics are lost, "
            "and prometheus_client's own readers find them there again. promgun empties it at each start, so your code "
            "need not do that"
        )


@dataclass(slots=True)
class ClientLinks:
    """Maintains the client directories of a run, in a process of the workers' user. Nothing here raises."""

    run: RunDirectory
    _folders: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _linked: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _found_apart: bool = False
    _calls: int = 0

    def remove_stale(self) -> list[Path]:
        """Remove links of an earlier run and unfinished links; called once, when the first process begins to tend."""
        removed: list[Path] = []
        if not self.run.is_open_to_me:
            return removed
        self._found_apart = claim(self.run)
        for client, mark in marks(self.run).items():
            wanted = self._wanted(mark)
            for name in _names(client):
                path, target = client / name, wanted.get(name)
                if not _TEMPORARY.fullmatch(name) and (_same(path, target) or not _is_stale(path, mark)):
                    continue
                if target is None and name in self._wanted(mark):
                    # Another process has made the file and its link since this one looked.
                    continue
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    removed.append(path)
        return removed

    def tend(self) -> Tended:
        """Make missing links, and those that lead elsewhere, again; return what was done."""
        if not self.run.is_open_to_me:
            return Tended()
        self._calls += 1
        found_apart = claim(self.run) or self._found_apart
        self._found_apart = False
        remade: list[Path] = []
        links: dict[int, list[Path]] = {_Made.NOTHING: [], _Made.LINK: [], _Made.FAILED: []}
        restored: list[Path] = []
        present = set()
        for client, mark in marks(self.run).items():
            if self._tend_folder(client):
                remade.append(client)
            wanted = self._wanted(mark)
            present |= {client / name for name in wanted}
            for name, target in wanted.items():
                identity, path = _identity(target), client / name
                if identity is None or self._is_left_unlinked(path, target):
                    continue
                if mark:
                    _unlink_if_same(client / name.replace(mark, ""), target)
                done = _link(client, target, name, symbolic=target.parent == self.run.master)
                if done == _Made.LINK and self._linked.get(path) == identity:
                    restored.append(path)
                else:
                    links[done].append(path)
                if done != _Made.FAILED:
                    self._linked[path] = identity
        for path in self._linked.keys() - present:
            del self._linked[path]
        return Tended(
            tuple(remade),
            tuple(restored),
            tuple(links[_Made.LINK]),
            tuple(links[_Made.FAILED]),
            self.run.second_client if found_apart else None,
        )

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

    def _wanted(self, mark: str) -> dict[str, Path]:
        """Return the target of each link that should exist, by the link's name."""
        wanted = {}
        for folder, pattern in ((self.run.slots, _SLOT_FILE), (self.run.master, _MASTER_FILE)):
            for name in _names(folder):
                match = pattern.fullmatch(name)
                if match is not None:
                    wanted[link_name(match[1], match[2], mark)] = folder / name
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


def _is_stale(path: Path, mark: str) -> bool:
    """Whether a link is of a run that has ended; ``mark`` is what this run's links there have in their names."""
    match = LINK.fullmatch(path.name)
    if match is None:
        return False
    if not match[1]:
        # The first run's: this one, of whose files it is none.
        return not mark
    try:
        # A file whose run is gone has no other name; the links' own targets are gone.
        return path.stat().st_nlink == 1 and not path.is_symlink()
    except OSError:
        return True


def _unlink_if_same(path: Path, target: Path) -> None:
    if _same(path, target):
        with contextlib.suppress(OSError):
            os.unlink(path)


def link_masters(run: RunDirectory) -> None:
    """Link the application's metrics of masters (``--preload``), symbolically; never raises."""
    for name in _names(run.master):
        match = _MASTER_FILE.fullmatch(name)
        if match is not None:
            for client, mark in marks(run).items():
                _link(client, run.master / name, link_name(match[1], match[2], mark), symbolic=True)
