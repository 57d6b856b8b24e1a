"""Sockets that systemd passes: those named ``metrics`` are ours, the others are the application's.

Gunicorn takes every descriptor of a socket activation for the application's (27.0 ``systemd.listen_fds``), so ours are
taken out first and the others renumbered without gaps. Names come from ``FileDescriptorName=`` (systemd.socket(5)) in
``LISTEN_FDNAMES`` (sd_listen_fds_with_names(3)).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import MutableMapping
from types import MappingProxyType

from promgun.config.listeners import NO_LISTENERS, Listener, Listeners
from promgun.config.metrics_addresses import SocketAddress

FIRST = 3
NAME = "metrics"


def take_metrics_sockets(environment: MutableMapping[str, str], pid: int) -> Listeners:
    """Take the sockets named ``metrics`` out of an activation for process ``pid``; empty when there are none.

    The other sockets are renumbered from descriptor 3 on without gaps, and the variables are updated.
    """
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    if environment.get("LISTEN_PID") != str(pid) or NAME not in names:
        return NO_LISTENERS
    count = int(environment.get("LISTEN_FDS", "0"))
    passed = list(zip(range(FIRST, FIRST + count), names, strict=False))
    ours = [
        Listener(fileno=fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST + count)) for fd, name in passed if name == NAME
    ]
    others = [(fd, name) for fd, name in passed if name != NAME]
    for place, (fd, _) in enumerate(others, FIRST):
        if place != fd:
            os.dup2(fd, place, inheritable=True)
    for fd in range(FIRST + len(others), FIRST + count):
        os.close(fd)
    if others:
        environment["LISTEN_FDS"] = str(len(others))
        environment["LISTEN_FDNAMES"] = ":".join(name for _, name in others)
    else:
        for variable in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
            environment.pop(variable, None)
    for sock in ours:
        sock.settimeout(0)
    return MappingProxyType({SocketAddress((sock.family, sock.getsockname())): sock for sock in ours})
