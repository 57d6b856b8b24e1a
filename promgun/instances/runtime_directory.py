"""Where the list of running instances lies: a directory of this user that nobody else may write to."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from promgun.errors import ConfigurationError
from promgun.system.folders import temporary_folder

VARIABLE = "PROMGUN_RUNTIME_DIR"
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


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


def writable_directory() -> Path:
    """The first place that can hold the list, made if need be; raises ``ConfigurationError`` if none can."""
    reasons: list[str] = []
    for place in candidates(os.environ):
        with _collected(place, reasons):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(place)
            if not os.access(place, os.W_OK):
                raise PermissionError(None, "it cannot be written to")
            return place
    raise ConfigurationError(
        f"no private directory for the list of running instances ({'; '.join(reasons)})",
        f"Set {VARIABLE} to a directory of your own that only you may write to",
    )


@contextmanager
def _collected(place: Path, reasons: list[str]) -> Iterator[None]:
    """Add to ``reasons`` why ``place`` cannot be used, and go on."""
    try:
        yield
    except OSError as error:
        reasons.append(f"{place}: {error.strerror or error}")


def readable_directories() -> Iterator[Path]:
    """The places that exist and can be trusted; raises ``ConfigurationError`` if the one that was named cannot."""
    for place in candidates(os.environ):
        try:
            # A service's list belongs to the service's user; root may read it by naming it.
            _check_private(place, any_owner=os.geteuid() == 0 and bool(os.environ.get(VARIABLE)))
        except FileNotFoundError:
            continue
        except OSError as error:
            if os.environ.get(VARIABLE):
                raise ConfigurationError(
                    f"{VARIABLE}={place} cannot be trusted: {error.strerror or error}",
                    "Name a directory of your own that only you may write to",
                ) from error
            continue
        yield place


def _check_private(place: Path, *, any_owner: bool = False) -> None:
    """Raise ``OSError`` unless ``place`` is a directory (not a link) of this user, writable by nobody else."""
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(None, "not a directory")
    if status.st_uid != os.geteuid() and not any_owner:
        raise PermissionError(None, f"it belongs to uid {status.st_uid}")
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise PermissionError(None, "others may write to it")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Let one process at a time change the list in ``directory``."""
    with (directory / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
