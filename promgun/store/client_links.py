"""What stock readers see: links to the application's files, where ``PROMETHEUS_MULTIPROC_DIR`` points.

The directory that the variable names is not the store: code that was written for prometheus_client alone wipes it,
removes it, or replaces files in it at any moment. :class:`ClientLinks` looks after it about once a second.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from promgun.store.run_directory import RunDirectory

#: The kinds of value files: what stands before the process in the name of one of prometheus_client 0.26's (values.py).
KINDS = r"(?:counter|histogram|summary|gauge_(?:live)?(?:all|sum|min|max|mostrecent))"
#: Names in a client directory that are ours: of slots, of masters, and of what ended children have left.
LINK = re.compile(rf"{KINDS}_(?:slot\d+|m\d+|folded)\.db")
_SLOT_FILE = re.compile(rf"(\d{{1,6}}|folded)\.({KINDS})")
_MASTER_FILE = re.compile(rf"(m\d{{1,3}})\.({KINDS})")
_TEMPORARY = re.compile(rf"\.new-{LINK.pattern}")


def link_name(owner: str, kind: str) -> str:
    """Return the name under which stock readers find a file: ``owner`` is a slot's number, a master's or ``folded``."""
    return f"{kind}_slot{owner}.db" if owner.isdigit() else f"{kind}_{owner}.db"


def link_into(client: Path, target: Path, name: str) -> bool:
    """Make ``client/name`` the file ``target``: a hard link, a symbolic one across file systems; never raises.

    It appears complete: it is made under another name, then renamed. One that leads elsewhere is replaced. Returns
    whether it is there now.
    """
    return _link(client, target, name, symbolic=False) is not _Made.FAILED


class _Made:
    NOTHING, LINK, FAILED = range(3)


def _link(client: Path, target: Path, name: str, *, symbolic: bool) -> int:
    path = client / name
    with contextlib.suppress(OSError):
        if os.path.samefile(path, target):
            return _Made.NOTHING
    # One name, so that what killed processes leave stays bounded. Of two at the same moment one may fail: it is there.
    temporary = client / f".new-{name}"
    with contextlib.suppress(OSError):
        os.unlink(temporary)
    try:
        _make_link(target, temporary, symbolic=symbolic)
        if _is_folder(path):
            # nobody else calls a folder so: it only stands there if it was put in the place of a file of ours
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
    """What was done in the client directories: ``remade`` are directories that had been removed or replaced by others,
    ``restored`` links that had been removed or replaced, ``made`` links of files that are new; ``failed`` could not be
    made.
    """

    remade: tuple[Path, ...] = ()
    restored: tuple[Path, ...] = ()
    made: tuple[Path, ...] = ()
    failed: tuple[Path, ...] = ()

    @property
    def warning(self) -> str:
        """What the operator should know; empty when nobody touched anything. Log it once."""
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
            "stock readers find them there again. It is emptied at each start, so code that wipes it can go"
        )


@dataclass(slots=True)
class ClientLinks:
    """Looks after the client directories of a run, in a process that is the workers' user. Nothing here raises."""

    run: RunDirectory
    _folders: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _linked: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def remove_stale(self) -> list[Path]:
        """Remove links of an earlier run, and links half made: at the start of the first process that tends them."""
        removed: list[Path] = []
        if not self.run.is_open_to_me:
            return removed
        wanted = self._wanted()
        for client in self.run.clients:
            for name in _names(client):
                path, target = client / name, wanted.get(name)
                if not _TEMPORARY.fullmatch(name) and (not LINK.fullmatch(name) or _same(path, target)):
                    continue
                if target is None and name in self._wanted():
                    # Another process has made the file, and the link to it, since this one looked.
                    continue
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    removed.append(path)
        return removed

    def tend(self) -> Tended:
        """Make again what is missing or leads elsewhere; say what was done."""
        if not self.run.is_open_to_me:
            return Tended()
        wanted = self._wanted()
        remade: list[Path] = []
        links: dict[int, list[Path]] = {_Made.NOTHING: [], _Made.LINK: [], _Made.FAILED: []}
        restored: list[Path] = []
        for client in self.run.clients:
            if self._tend_folder(client):
                remade.append(client)
            for name, target in wanted.items():
                identity = _identity(target)
                if identity is None:
                    continue
                path = client / name
                done = _link(client, target, name, symbolic=target.parent == self.run.master)
                if done == _Made.LINK and self._linked.get(path) == identity:
                    restored.append(path)
                else:
                    links[done].append(path)
                if done != _Made.FAILED:
                    self._linked[path] = identity
        for path in [path for path in self._linked if path.name not in wanted]:
            del self._linked[path]
        return Tended(tuple(remade), tuple(restored), tuple(links[_Made.LINK]), tuple(links[_Made.FAILED]))

    def _tend_folder(self, client: Path) -> bool:
        """Make a client directory again if it is gone; return whether it is another than it was."""
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
        # An inode number is used again at once on some file systems, so what we made ourselves counts as another.
        return before is not None and (gone or before != self._folders[client])

    def _wanted(self) -> dict[str, Path]:
        """Return the links that there should be, by name."""
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
    """Return which regular file it is; ``None`` for what is none, or a link."""
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


def link_masters(client: Path, master: Path) -> None:
    """Link what masters have of the application's metrics (``--preload``), symbolically; never raises."""
    for name in _names(master):
        match = _MASTER_FILE.fullmatch(name)
        if match is not None:
            _link(client, master / name, link_name(match[1], match[2]), symbolic=True)
