"""Writing a file so that its readers never see half of it: the one writer of whole files."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from promgun.errors import ConfigurationError

#: A page is read by others (node_exporter's textfile collector runs as its own user); ``mkstemp`` alone gives 0600.
FILE_MODE = 0o644


def write_atomically(path: Path, content: str, *, durable: bool = True) -> None:
    """Replace ``path`` by ``content`` (UTF-8) in one step: a temporary file beside it, fsync if ``durable``, rename.

    A symbolic link is followed; the mode of a file that is there is kept, a new one is 0644; a pipe or a terminal is
    written to as it is. Raises ``ConfigurationError`` when the place cannot be written.
    """
    try:
        _write(Path(os.path.realpath(path)), path, content.encode(), durable=durable)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {path}: {error.strerror or error}", "Choose a file in a folder that you may write to"
        ) from error


def _write(target: Path, named: Path, content: bytes, *, durable: bool) -> None:
    mode = FILE_MODE
    if named.exists():
        status = named.stat()
        if not stat.S_ISREG(status.st_mode):
            named.write_bytes(content)
            return
        mode = stat.S_IMODE(status.st_mode)
    replace_file(target, content, mode=mode, durable=durable)


def replace_file(
    target: Path,
    content: bytes,
    *,
    mode: int,
    owner: tuple[int, int] | None = None,
    durable: bool = False,
    prefix: str = ".",
) -> None:
    """Put a file of that content, mode and owner (uid, gid) in the place of ``target`` in one step.

    The temporary file beside it begins with ``prefix``; it is gone afterwards, also after an error. Raises ``OSError``.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f"{prefix}{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        _fill(descriptor, content, mode, owner, durable=durable)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def replace_in_folder(
    folder_fd: int, name: str, content: bytes, *, mode: int, owner: tuple[int, int] | None = None
) -> None:
    """Put a file of that content, mode and owner (uid, gid) under ``name`` in an open folder in one step.

    The folder is this one wherever its path leads by now. The temporary file begins with ``.new-``; it is gone
    afterwards, also after an error. Raises ``OSError``.
    """
    temporary = f".new-{name}.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=folder_fd)
    try:
        _fill(descriptor, content, mode, owner)
        os.rename(temporary, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=folder_fd)
        raise


def _fill(descriptor: int, content: bytes, mode: int, owner: tuple[int, int] | None, *, durable: bool = False) -> None:
    """Write a new file, give it its mode and owner, and close it."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        if durable:
            os.fsync(file.fileno())
