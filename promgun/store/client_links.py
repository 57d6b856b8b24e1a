"""Links to the application's files, and their names, in the directories where stock readers of prometheus_client look.

``PROMETHEUS_MULTIPROC_DIR`` names such a client directory. It is not the store, because code written for
prometheus_client alone may wipe it, remove it, or replace files in it at any moment: see ``client_upkeep``.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from promgun.store.run_directory import RunDirectory

_AGGREGATIONS = ("all", "sum", "min", "max", "mostrecent")
#: prometheus_client 0.26 (values.py) puts the kind before the pid in a file's name.
_KINDS = (
    *("counter", "histogram", "summary"),
    *(f"gauge_{live}{aggregation}" for live in ("", "live") for aggregation in _AGGREGATIONS),
)
#: The kinds of value files, as a pattern.
KINDS = f"(?:{'|'.join(_KINDS)})"
#: Names in a client directory that are ours, as a pattern: files of slots, of masters, and folded files of ended
#: children.
LINK = rf"{KINDS}_(?:slot\d+|m\d+|folded)\.db"
#: The most digits of a slot's number, and of a master's.
_SLOT, _MASTER = 6, 3


def link_name(owner: str, kind: str) -> str:
    """Return the link's name in a client directory; ``owner`` is a slot's number, a master's name or ``folded``."""
    return f"{kind}_slot{owner}.db" if owner.isdigit() else f"{kind}_{owner}.db"


def owner_and_kind(name: str) -> tuple[str, str]:
    """Return the owner, as in :func:`link_name`, and the kind of a value file by its name in the store.

    Both are empty for other files.
    """
    owner, _, kind = name.partition(".")
    if kind not in _KINDS or not owner.isascii():
        return "", ""
    if owner == "folded" or (owner.isdecimal() and len(owner) <= _SLOT):
        return owner, kind
    number = owner.removeprefix("m")
    return (owner, kind) if number != owner and number.isdecimal() and len(number) <= _MASTER else ("", "")


def link_file(run: RunDirectory, target: Path, owner: str, kind: str) -> None:
    """Link a value file into the client directories; ``owner`` is as in :func:`link_name`. Never raises.

    It is a hard link, or a symbolic one across file systems. It is made under a temporary name and then renamed, so it
    appears complete; a link of that name to another file is replaced.
    """
    for client in _own_clients(run):
        make_link(client, target, link_name(owner, kind), symbolic=False)


def unlink_file(run: RunDirectory, owner: str, kind: str) -> None:
    """Remove the links to a value file from the client directories; never raises."""
    for client in _own_clients(run):
        with contextlib.suppress(OSError):
            os.unlink(client / link_name(owner, kind))


class LinkResult:
    """What :func:`make_link` did."""

    NOTHING, LINK, FAILED = range(3)


def make_link(client: Path, target: Path, name: str, *, symbolic: bool) -> int:
    """Make or replace one link; return one of :class:`LinkResult`. Never raises."""
    path = client / name
    with contextlib.suppress(OSError):
        if os.path.samefile(path, target):
            return LinkResult.NOTHING
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
        return LinkResult.FAILED
    finally:
        # rename(2) of one hard link over another of the same file does nothing, and leaves both
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return LinkResult.LINK


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


def names_in(folder: Path) -> list[str]:
    """Return the names in a directory, sorted; none where it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def is_same(path: Path, target: Path | None) -> bool:
    """Whether two paths lead to one file; never raises."""
    try:
        return target is not None and os.path.samefile(path, target)
    except OSError:
        return False


def unlink_if_same(path: Path, target: Path) -> None:
    """Remove a link that leads to ``target``; never raises."""
    if is_same(path, target):
        with contextlib.suppress(OSError):
            os.unlink(path)


def link_masters(run: RunDirectory) -> None:
    """Link the application's metrics of masters (``--preload``), symbolically; never raises."""
    for name in names_in(run.master):
        owner, kind = owner_and_kind(name)
        if owner.startswith("m"):
            for client in _own_clients(run):
                make_link(client, run.master / name, link_name(owner, kind), symbolic=True)


def remove_links(run: RunDirectory) -> None:
    """Remove the links in the second client directory, and the claim on it, before the run's files are removed.

    Never raises. Does nothing as another user than the workers', who may have put anything there.
    """
    client = run.second_client
    if client is None or not run.is_open_to_me:
        return
    for folder in (run.slots, run.master):
        for name in names_in(folder):
            owner, kind = owner_and_kind(name)
            if owner:
                unlink_if_same(client / link_name(owner, kind), folder / name)
    from promgun.store.client_claim import give_up_claim  # noqa: PLC0415 - same as below

    give_up_claim(run)


def _own_clients(run: RunDirectory) -> tuple[Path, ...]:
    if run.second_client is None:
        return run.clients
    from promgun.store.client_claim import own_clients  # noqa: PLC0415 - only where another run may want the directory

    return own_clients(run)
