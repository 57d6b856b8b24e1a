"""Names the links in client directories, and tells which of two runs that share such a directory was there first.

Two servers may be started with the same ``PROMETHEUS_MULTIPROC_DIR``, or one from within another's worker, which
inherits it. The first writes its name into the directory, as a link ``.promgun-run``. Links of any other run have that
run's mark in their names: ``counter_slot1-2f6a01c4.db``. So neither replaces the other's, stock readers see the totals
of both, and only the first run takes in what processes without promgun write there.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import zlib
from pathlib import Path

from promgun.store.run_directory import CLIENT, MULTIPROC, SLOTS, DirectoryIdentity, RunDirectory
from promgun.store.slot_lock import is_any_slot_held
from promgun.system.safe_open import opened_folder

#: The kinds of value files: prometheus_client 0.26 (values.py) puts the kind before the pid in a file's name.
KINDS = r"(?:counter|histogram|summary|gauge_(?:live)?(?:all|sum|min|max|mostrecent))"
#: The mark of a run that is not the first in a directory. Not ``_``: stock readers cut names there.
_MARK = r"-[0-9a-f]{8}"
#: Names in a client directory that are ours: files of slots, of masters, and folded files of ended children.
LINK = re.compile(rf"{KINDS}_(?:slot\d+|m\d+|folded)({_MARK})?\.db")
#: The link in a shared directory to the run whose workers were there first.
FIRST = ".promgun-run"
#: A marker file, made once a run knows that it is not the first.
_APART = ".links-apart"


def link_name(owner: str, kind: str, mark: str = "") -> str:
    """Return the link's name in a client directory; ``owner`` is a slot's number, a master's name or ``folded``."""
    return f"{kind}_slot{owner}{mark}.db" if owner.isdigit() else f"{kind}_{owner}{mark}.db"


def marks(run: RunDirectory) -> dict[Path, str]:
    """Return the client directories of a run, and what its links there have in their names."""
    found = dict.fromkeys(run.clients, "")
    if run.second_client is not None and is_apart(run):
        found[run.second_client] = f"-{zlib.crc32(repr(run.identity).encode()):08x}"
    return found


def own_clients(run: RunDirectory) -> tuple[Path, ...]:
    """Return the client directories in which other processes' files are this run's to read, and to take in."""
    return (run.multiproc,) if is_apart(run) else run.clients


def is_apart(run: RunDirectory) -> bool:
    """Whether another run was first in the second client directory; changes nothing, never raises."""
    client = run.second_client
    if client is None:
        return False
    return os.path.lexists(run.slots / _APART) or _is_of_a_run(client) or _first(client, run) is _First.ANOTHER


def claim(run: RunDirectory) -> bool:
    """Make the run the first in its second client directory if there is none; a worker does this about once a second.

    Returns whether it has just been found that another is. That is noted and never undone: names stay as they are.
    Never raises.
    """
    client = run.second_client
    if client is None:
        return False
    if is_apart(run):
        try:
            os.close(os.open(run.slots / _APART, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError:
            return False
        return True
    if _first(client, run) is _First.NONE:
        with contextlib.suppress(OSError):
            _write_first(client, run)
    return False


class _First:
    NONE, OURS, ANOTHER = range(3)


def _first(client: Path, run: RunDirectory) -> int:
    try:
        status = (client / FIRST).stat()
    except OSError:
        return _First.NONE
    if not stat.S_ISDIR(status.st_mode):
        return _First.NONE
    if DirectoryIdentity(status.st_dev, status.st_ino) == run.identity:
        return _First.OURS
    return _First.ANOTHER if _lives(client / FIRST) else _First.NONE


def _lives(run_path: Path) -> bool:
    try:
        with opened_folder(run_path / SLOTS) as slots_fd:
            return is_any_slot_held(slots_fd)
    except PermissionError:
        # of another user's, so it cannot be known
        return True
    except OSError:
        return False


def _write_first(client: Path, run: RunDirectory) -> None:
    """Make the link in place of that of a run that has ended; raises ``OSError``, also when another was faster."""
    path = client / FIRST
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(run.path, path)


def _is_of_a_run(client: Path) -> bool:
    """Whether a directory is the one that another run's own workers have in the variable."""
    return client.name == MULTIPROC and client.parent.name == CLIENT and (client.parent.parent / SLOTS).is_dir()
