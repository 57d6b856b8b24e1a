"""Where the list of running instances lies: a directory of this user that nobody else may write to.

Root may also read the list of another user, whose directory it names by ``PROMGUN_RUNTIME_DIR``. What is checked is the
directory that is open, by its descriptor: whoever swaps the folder for another one later changes nothing.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from promgun.errors import ConfigurationError
from promgun.system.folders import temporary_folder
from promgun.system.safe_open import open_regular, opened_folder

VARIABLE = "PROMGUN_RUNTIME_DIR"
_HINT = f"Set {VARIABLE} to a directory of your own that only you may write to, for servers and commands alike"
_LOCK = "lock"
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ListDirectory:
    """An open directory that holds a list; ``own`` if it belongs to this user."""

    path: Path
    fd: int
    own: bool


def candidates(environ: Mapping[str, str]) -> list[Path]:
    """The places for the list, the preferred one first.

    A service and a login shell of one user may prefer different ones, so readers look into all of them.
    """
    if environ.get(VARIABLE):
        return [Path(os.path.realpath(environ[VARIABLE]))]
    places = []
    session = Path(environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    if session.is_dir() and session.stat().st_uid == os.geteuid():
        places.append(session / "promgun")
    if os.geteuid() == 0:
        places.append(Path("/run/promgun"))
    places.append(temporary_folder() / f"promgun-{os.geteuid()}")
    return places


@contextmanager
def open_list(place: Path, *, any_owner: bool = False) -> Iterator[ListDirectory]:
    """Open a directory for the time of the block.

    Raises ``OSError`` unless it is a directory (not a link) of this user, or with ``any_owner`` of any one user, that
    nobody else may write to.
    """
    # Looked at by its name first, so that a caller who may not open it still learns whose it is.
    _check_owner(place.lstat(), any_owner=any_owner)
    with opened_folder(place) as directory_fd:
        status = os.fstat(directory_fd)
        own = _check_owner(status, any_owner=any_owner)
        if status.st_mode & _OTHERS_MAY_WRITE:
            raise PermissionError(None, "others may write to it")
        yield ListDirectory(place, directory_fd, own)


def _check_owner(status: os.stat_result, *, any_owner: bool) -> bool:
    """Return whether it is this user's; raises ``PermissionError`` if it must be and is not."""
    own = status.st_uid == os.geteuid()
    if not own and not any_owner:
        raise PermissionError(None, f"it belongs to uid {status.st_uid}")
    return own


def writable_directory() -> Path:
    """The first place that can hold the list, made if need be; raises ``ConfigurationError`` if none can."""
    reasons: list[str] = []
    for place in candidates(os.environ):
        with _collected(place, reasons):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open_list(place):
                if not os.access(place, os.W_OK):
                    raise PermissionError(None, "it cannot be written to")
            return place
    raise ConfigurationError(f"no private directory for the list of running instances ({'; '.join(reasons)})", _HINT)


@contextmanager
def _collected(place: Path, reasons: list[str]) -> Iterator[None]:
    """Add to ``reasons`` why ``place`` cannot be used, and go on."""
    try:
        yield
    except OSError as error:
        reasons.append(f"{place}: {error.strerror or error}")


def readable_directories() -> Iterator[ListDirectory]:
    """The places that exist and can be trusted, each open until the next one is asked for.

    Raises ``ConfigurationError`` if the one that was named cannot be trusted.
    """
    named = bool(os.environ.get(VARIABLE))
    for place in candidates(os.environ):
        try:
            # A service's list belongs to the service's user; root may read it by naming it.
            with open_list(place, any_owner=named and os.geteuid() == 0) as directory:
                yield directory
        except OSError as error:  # noqa: PERF203 - there are three places at most
            if named and not isinstance(error, FileNotFoundError):
                raise ConfigurationError(
                    f"{VARIABLE}={place} cannot be trusted: {error.strerror or error}",
                    "Name a directory of your own that only you may write to",
                ) from error


def why_unreadable() -> str:
    """Return why lists of running instances are skipped, and what to set; empty if none is."""
    reasons: list[str] = []
    for place in candidates(os.environ):
        with _collected(place, reasons):
            try:
                with open_list(place):
                    pass
            except FileNotFoundError:
                continue
    if not reasons or os.environ.get(VARIABLE):
        return ""
    return f"the list of running instances cannot be read ({'; '.join(reasons)}). {_HINT}"


@contextmanager
def locked(directory: ListDirectory) -> Iterator[None]:
    """Let one process at a time change the list in ``directory``."""
    lock = open_regular(directory.fd, _LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
