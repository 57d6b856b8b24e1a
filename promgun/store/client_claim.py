"""Decides which run may use a client directory that several servers were given.

Two servers may be started with the same ``PROMETHEUS_MULTIPROC_DIR``, or one from within another's worker, which
inherits it. One run at a time has the directory: the one that the file ``.promgun-run`` in it names, for as long as a
master of that run lives. Any other run has no links there, and leaves alone what processes without promgun write there.
Once that master has ended, the first to notice takes the directory over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from promgun.store.board import Cell
from promgun.store.descriptor import Identity, identity_of
from promgun.store.left_overs import PREFIX
from promgun.store.run_directory import CLIENT, MASTER, MULTIPROC, RunDirectory
from promgun.store.run_places import INNER
from promgun.store.run_reader import read_views
from promgun.store.slot_lock import is_held
from promgun.system.procfs import boot_id
from promgun.system.safe_open import open_regular, opened_folder

#: The file in a client directory that names the run which has it. Not a link: people empty such a directory with code
#: that takes a link to a folder for a folder.
CLAIM_FILE = ".promgun-run"
_TEMPORARY = ".new-promgun-run"
_LONGEST = 8192
_CLAIM = re.compile(r"(/[^\n\0]*)\n(\d+) (\d+)\n([^\n]*)\n")
_MASTER_FILE = re.compile(r"m\d{1,3}")
#: Seconds for which a run counts as living of which nothing but its claim can be seen. Its workers renew that about
#: once a second, unless a request keeps a sync worker busy, which Gunicorn by default allows for 30 seconds.
_FRESH = 30.0
#: The variable in which Gunicorn 22 to 25 (arbiter.py, ``reexec``) tells a new master its old master's pid, until that
#: has ended.
_OLD_MASTER = "GUNICORN_PID"


class Standing(Enum):
    """What a run is to its second client directory."""

    OURS = "the run has it"
    TAKEN = "the run has just taken it"
    ANOTHERS = "another run has it"
    FREE = "no running server has it"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Claim:
    """The content of a claim file; ``namespace`` tells whether ``run`` would be found under that path from here."""

    run: Path
    identity: Identity
    namespace: str

    def __str__(self) -> str:
        return f"{self.run}\n{self.identity[0]} {self.identity[1]}\n{self.namespace}\n"


def own_clients(run: RunDirectory) -> tuple[Path, ...]:
    """Return the client directories that this run may use; changes nothing, never raises."""
    client = run.second_client
    return run.clients if client is None or _standing(run, client) is not Standing.ANOTHERS else (run.multiproc,)


def claim(run: RunDirectory) -> Standing:
    """Take the second client directory if no running server has it, and renew the claim; never raises.

    A worker calls this about once a second. ``FREE`` is what the directory stays while no file can be made in it.
    """
    client = run.second_client
    if client is None:
        return Standing.OURS
    standing = _standing(run, client)
    if standing is Standing.OURS:
        with contextlib.suppress(OSError):
            os.utime(client / CLAIM_FILE, follow_symlinks=False)
    elif standing is Standing.FREE and os.path.isdir(run.slots):
        with contextlib.suppress(OSError):
            _write(client, _Claim(run.path, run.identity, _namespace()))
            standing = Standing.TAKEN
    return standing


def give_up_claim(run: RunDirectory) -> None:
    """Remove the run's claim on its second client directory, as the last of its processes; never raises."""
    client = run.second_client
    if client is not None and _standing(run, client) is Standing.OURS:
        with contextlib.suppress(OSError):
            os.unlink(client / CLAIM_FILE)


def is_old_master_s(client: Path) -> bool:
    """Whether the run that has a client directory is that of the master which executed ours (SIGUSR2); never raises.

    Under plain Gunicorn each of the two has a run of its own.
    """
    pid = os.environ.get(_OLD_MASTER, "")
    try:
        with opened_folder(client, follow=True) as client_fd:
            found = _read(client_fd)
    except OSError:
        return False
    if found is None or not pid.isdecimal():
        return False
    return any(view.slot < 0 and view[Cell.PID] == int(pid) for view in read_views(found.run))


def _standing(run: RunDirectory, client: Path) -> Standing:
    if _is_of_a_run(client):
        return Standing.ANOTHERS
    try:
        with opened_folder(client, follow=True) as client_fd:
            renewed = os.stat(CLAIM_FILE, dir_fd=client_fd, follow_symlinks=False).st_mtime
            try:
                found = _read(client_fd)
            except PermissionError:
                lives = None
            else:
                if found is None:
                    return Standing.FREE
                if found.identity == run.identity and os.path.samefile(found.run, run.path):
                    return Standing.OURS
                lives = _has_master(found)
    except OSError:
        return Standing.FREE
    if lives is None:
        lives = abs(time.time() - renewed) < _FRESH
    return Standing.ANOTHERS if lives else Standing.FREE


def _is_of_a_run(client: Path) -> bool:
    """Whether a directory is the one that another run's own workers have in the variable, or had before it ended."""
    run = client.parent.parent.name
    return (client.parent.name, client.name) == (CLIENT, MULTIPROC) and (run == INNER or run.startswith(PREFIX))


def _read(client_fd: int) -> _Claim | None:
    """Return the claim in an open directory, ``None`` if the file is none; raises ``OSError``."""
    try:
        fd = open_regular(client_fd, CLAIM_FILE)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError:
        return None
    try:
        data = os.pread(fd, _LONGEST, 0)
    finally:
        os.close(fd)
    match = _CLAIM.fullmatch(os.fsdecode(data))
    if match is None or len(match[2]) + len(match[3]) > 40:  # noqa: PLR2004 - two numbers of 64 bits
        return None
    return _Claim(Path(match[1]), (int(match[2]), int(match[3])), match[4])


def _has_master(other: _Claim) -> bool | None:
    """Whether a master of a run lives; ``None`` when that cannot be found out from here."""
    try:
        status = os.stat(other.run)
        there = identity_of(status) == other.identity
    except PermissionError:
        return None
    except OSError:
        there = False
    if not there:
        # Its directory was removed, unless its path leads somewhere else in its own mount namespace.
        return False if other.namespace == _namespace() else None
    try:
        return _is_locked(other.run)
    except PermissionError:
        pass
    except OSError:
        return False
    try:
        # Workers cannot open the directory of a root master's run. Masters have their own files locked as well.
        with opened_folder(other.run / MASTER) as folder_fd:
            return any(is_held(folder_fd, name) for name in os.listdir(folder_fd) if _MASTER_FILE.fullmatch(name))
    except OSError:
        return None


def _is_locked(run: Path) -> bool:
    """Whether a master has a run's directory; raises ``OSError``. Workers have released it."""
    with opened_folder(run) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _namespace() -> str:
    """Return what tells this boot of this host, and this mount namespace, from others."""
    with contextlib.suppress(OSError):
        return f"{boot_id()} {os.readlink('/proc/self/ns/mnt')}"
    return ""


def _write(client: Path, ours: _Claim) -> None:
    """Write the claim file, complete from the moment that it is there; raises ``OSError``.

    Of two runs that do so at once the later one has the directory, as the other sees a second later.
    """
    temporary = client / _TEMPORARY
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        # Another user's server has to read it.
        os.fchmod(fd, 0o644)
        os.write(fd, os.fsencode(str(ours)))
    finally:
        os.close(fd)
    path = client / CLAIM_FILE
    if path.is_symlink() or not os.path.isdir(path):
        os.replace(temporary, path)
