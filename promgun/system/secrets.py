"""Passwords: reads them from a file, masks them in text, removes them from the environment that others can read."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import MutableMapping
from pathlib import Path

MASK = "***"
_MOST_BYTES = 64 * 1024
#: A password and what stands before it in ``scheme://user:password@host``. It goes on to the last ``@``: people write
#: blanks, slashes and ``@`` where RFC 3986 (3.2.1) wants them quoted. A word without a scheme ends at a blank.
#: Patterns are compiled when they are first needed: most starts need none.
_IN_URL = r"(?s:([A-Za-z][A-Za-z0-9+.-]*:\W{0,2}/[^?#:@]*:).+(?=@))"
_IN_WORD = r"(?<![^\s('\"=])([^\s:@/'\"=()]*:)(?!//)\S+(?=@)"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"


def mask_passwords(text: str) -> str:
    """Return a message with what may be the password of a URL replaced by ``***``; rather too much than too little."""
    masked = rf"\g<1>{MASK}"
    return re.sub(_IN_WORD, masked, re.sub(_IN_URL, masked, text))


def may_have_password(text: str) -> bool:
    """Return whether a ``:`` comes before an ``@``, apart from that of a scheme, as in every URL with a password."""
    return "@" in text and ":" in re.sub(_SCHEME, "", text, count=1).rpartition("@")[0]


def read_password(path: str | Path) -> str:
    """Return the first line of a regular file; links are followed, as a mounted Kubernetes secret is one.

    Raises ``OSError``, and ``ValueError`` for a line that is empty or no printable text.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        line = os.read(fd, _MOST_BYTES).partition(b"\n")[0].rstrip(b"\r")
    finally:
        os.close(fd)
    try:
        password = line.decode()
    except UnicodeDecodeError:
        password = ""
    if not password or not password.isprintable():
        raise ValueError("its first line holds no password")
    return password


def hide_passwords(environment: MutableMapping[str, str], names: tuple[str, ...]) -> None:
    """Remove variables that may contain a URL with a password from ``os.environ``.

    /proc/PID/environ shows the memory in which a program was given its environment, and a forked worker has a copy of
    it, so the value is overwritten there too.
    """
    for name in names:
        if may_have_password(environment.get(name, "")):
            _overwrite(name)
            del environment[name]


def _overwrite(name: str) -> None:
    import ctypes  # noqa: PLC0415 - rarely needed

    libc = ctypes.CDLL(None)
    libc.getenv.argtypes, libc.getenv.restype = [ctypes.c_char_p], ctypes.c_void_p
    if (address := libc.getenv(name.encode())) is not None:
        ctypes.memset(address, ord("*"), len(ctypes.string_at(address)))
