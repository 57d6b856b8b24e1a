"""Whether the application can be served on its addresses, asked before anything starts."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Sequence
from typing import Any

from promgun.config.metrics_addresses import probe
from promgun.errors import ConfigurationError

#: Seconds for which a server that is just ending may still hold the address; Gunicorn itself retries for five.
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
#: Bytes of a path that fit into sockaddr_un (unix(7)), without the terminating NUL.
_LONGEST_PATH = 107
_LAST_PORT = 65_535


def check_addresses(addresses: Sequence[Any]) -> None:
    """Raise :class:`ConfigurationError` for the first address that cannot be bound even when it is free.

    Addresses are as Gunicorn parses them: a tuple, a path or a descriptor. Nothing stays bound.
    """
    for number, address in enumerate(addresses):
        _check(address)
        if address in addresses[:number] and not (isinstance(address, tuple) and address[1] == 0):
            raise ConfigurationError(
                f"Cannot serve the application on {_text(address)} twice", "Name each address once with --bind"
            )


def _check(address: Any) -> None:
    reason: str | None = None
    if isinstance(address, tuple):
        if not 0 <= address[1] <= _LAST_PORT:
            reason = "a port is a number from 0 (any free one) to 65535"
        elif error := probe(_family(address), address):
            raise _refusal(address, error)
    elif isinstance(address, int):
        reason = _descriptor_refusal(address)
    else:
        reason = _path_refusal(os.fspath(address))
    if reason is not None:
        raise ConfigurationError(
            f"Cannot serve the application on {_text(address)}: {reason}", "Choose another address with --bind"
        )


def _text(address: Any) -> str:
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return f"fd://{address}" if isinstance(address, int) else f"unix:{address}"


def _descriptor_refusal(descriptor: int) -> str | None:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return "the descriptor is not open"
    return None if stat.S_ISSOCK(mode) else "the descriptor is not a socket"


def _path_refusal(path: str) -> str | None:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        return f"the path has more than the {_LONGEST_PATH} bytes that a socket's name may have"
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        return f"{folder} is not a folder" if os.path.exists(folder) else "the folder does not exist"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"no permission to write into {folder}"
    if os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        return "the file is not a socket"
    return None


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
    raise _refusal(address, error)


def _refusal(address: Any, error: OSError) -> ConfigurationError:
    reason, hint = _ADVICE.get(error.errno or 0, (error.strerror or str(error), "Choose another address with --bind"))
    return ConfigurationError(f"Cannot serve the application on {_text(address)}: {reason}", hint)


def _family(address: tuple[str, int]) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _try(address: tuple[str, int]) -> OSError | None:
    try:
        with socket.socket(_family(address), socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            # A listener with SO_REUSEADDR lets others bind, but not listen.
            sock.listen(1)
    except OSError as error:
        return error
    return None
