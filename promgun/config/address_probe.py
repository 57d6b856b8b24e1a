"""Whether this process may bind a TCP address, asked of the kernel without occupying the address."""

from __future__ import annotations

import errno
import socket
from typing import Any

#: Ports below it need a privilege (IPPORT_RESERVED; Linux can move the limit by ip_unprivileged_port_start).
_RESERVED = 1024


def probe(family: int, sockaddr: Any) -> OSError | None:
    """Return the error that bind(2) would give for this address, ``EADDRINUSE`` excepted; ``None`` if it can be bound.

    The host is bound with port 0, so that no port is taken from anybody. A reserved port needs a privilege, so it is
    bound too, for a moment and without listening. ``sockaddr`` is a tuple that begins with host and port.
    """
    host, port, *rest = sockaddr
    try:
        for asked in (0, port) if 0 < port < _RESERVED else (0,):
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((host, asked, *rest))
    except OSError as error:
        return error if error.errno != errno.EADDRINUSE else None
    return None
