"""Whether the application's addresses can be had, asked before anything starts."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from promgun.errors import ConfigurationError

#: How long a server that is just ending may still hold the address; Gunicorn itself would try for five seconds.
PATIENCE = 2.0
_PAUSE = 0.2

_ADVICE = {
    errno.EADDRINUSE: (
        "the address is already in use",
        "Stop whoever listens there, or choose another address with --bind",
    ),
    errno.EADDRNOTAVAIL: (
        "this machine has no such address",
        "Choose another with --bind, e.g. 127.0.0.1:8000",
    ),
    errno.EACCES: (
        "no permission",
        "Choose a port above 1023 with --bind, or start as a user who may use this one",
    ),
}


def check_free(address: Any, patience: float = PATIENCE) -> None:
    """Raise :class:`ConfigurationError` when a TCP address (a tuple, as Gunicorn parses it) cannot be bound.

    Descriptors and Unix sockets pass: the first are open already, the second Gunicorn replaces.
    """
    if not isinstance(address, tuple):
        return
    deadline = time.monotonic() + patience
    while True:
        error = _try(address)
        if error is None:
            return
        if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
            break
        time.sleep(_PAUSE)
    reason, hint = _ADVICE.get(error.errno or 0, (error.strerror or str(error), "Choose another address with --bind"))
    raise ConfigurationError(f"Cannot serve the application on {address[0]}:{address[1]}: {reason}", hint) from error


def _try(address: tuple[str, int]) -> OSError | None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            # A listener with SO_REUSEADDR lets others bind, but not listen.
            probe.listen(1)
    except OSError as error:
        return error
    return None
