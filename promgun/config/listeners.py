"""Addresses of the metrics endpoint: how they are written, bound, shown and given up."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promgun.errors import MetricsAddressError
from promgun.metrics.defaults import METRICS_ADDRESS, METRICS_PORT

BACKLOG = 512

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
_FORMS = "Write HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH"
_HIGHEST_PORT = 65535
# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on macOS and the BSDs, the ending NUL included.
_LONGEST_PATH = 103


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: ``host`` and ``port`` (0: any free one), or the absolute ``path`` of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT``, ``HOST`` (port 9164), ``[IPV6]:PORT``, ``:PORT`` (all of IPv4) or ``unix:PATH``.

    A relative path is taken from the working directory of now, because a server may leave it later.
    Raises ``MetricsAddressError`` for anything else, a port without a host among it.
    """
    text = text.strip()
    if text.startswith("unix:"):
        return _parse_path(text.removeprefix("unix:"), text)
    host, port = _parse_bracketed(text) if text.startswith("[") else _parse_plain(text)
    return Address(host=host, port=_parse_port(port, text))


def _unreadable(text: str, hint: str = _FORMS) -> MetricsAddressError:
    return MetricsAddressError(f"Metrics address {text!r} cannot be understood", hint)


def _parse_path(path: str, text: str) -> Address:
    if not path or "\0" in path:
        raise _unreadable(text, "After unix: comes the path of a socket file, as in unix:/run/promgun.sock")
    path = str(Path(path).absolute())
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise MetricsAddressError(
            f"The socket path {path} is longer than {_LONGEST_PATH} bytes, the most a Unix socket can have",
            "Choose a shorter one, e.g. in /run or /tmp",
        )
    return Address(path=path)


def _parse_bracketed(text: str) -> tuple[str, str]:
    host, bracket, port = text[1:].partition("]")
    if not bracket or not _is_ipv6(host) or (port and not port.startswith(":")):
        raise _unreadable(text)
    return host, port[1:] if port else str(METRICS_PORT)


def _parse_plain(text: str) -> tuple[str, str]:
    if "/" in text:
        raise _unreadable(text)
    if _is_ipv6(text):
        raise _unreadable(text, f"An IPv6 address stands in brackets: [{text}]:{METRICS_PORT}")
    if text.isdecimal():
        raise _unreadable(text, f"A port needs a host: 127.0.0.1:{text} for this machine, :{text} for every interface")
    host, colon, port = text.partition(":")
    if not colon:
        port = str(METRICS_PORT)
    if host and not _HOST_NAME.fullmatch(host):
        raise _unreadable(text)
    if not host and not colon:
        raise _unreadable(text)
    return host or "0.0.0.0", port  # noqa: S104 - asked for in so many words by ":PORT"


def _is_ipv6(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def _parse_port(port: str, text: str) -> int:
    if not (port.isascii() and port.isdecimal()) or int(port) > _HIGHEST_PORT:
        raise _unreadable(text, f"A port is a number from 0 (any free one) to {_HIGHEST_PORT}")
    return int(port)


def bind(address: Address, *, backlog: int = BACKLOG, uid: int | None = None, gid: int | None = None) -> socket.socket:
    """Listen on ``address``: a non-blocking socket that no child inherits unasked.

    SO_REUSEPORT stays off, so that a second server is told instead of sharing the scrapes. A name with both
    kinds of addresses is bound on its IPv4 one. ``uid`` and ``gid`` become the owner of a Unix socket's file; a
    file that nobody listens on any more is replaced. Raises ``MetricsAddressError`` when the address cannot be
    had.
    """
    try:
        return _bind_path(address, backlog, uid, gid) if address.path else _bind_port(address, backlog)
    except OSError as error:
        raise _refused(address, error) from error


def _bind_port(address: Address, backlog: int) -> socket.socket:
    family, kind, protocol, _, sockaddr = _look_up(address)
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(family, kind, protocol))
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(sockaddr)
        sock.listen(backlog)
        undo.pop_all()
    return sock


def _look_up(address: Address) -> tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise MetricsAddressError(
            f"Cannot listen for metrics on {address}: the host {address.host!r} is not known here",
            "Use an address of this machine, e.g. 127.0.0.1",
        ) from error
    return min(found, key=lambda info: info[0] is not socket.AF_INET)


def _bind_path(address: Address, backlog: int, uid: int | None, gid: int | None) -> socket.socket:
    path = Path(address.path)
    _clear(path, address)
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.settimeout(0)
        sock.bind(address.path)
        undo.callback(path.unlink)
        if uid is not None or gid is not None:
            os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)
        sock.listen(backlog)
        undo.pop_all()
    return sock


def _clear(path: Path, address: Address) -> None:
    """Remove a socket file that nobody listens on; refuse whatever else has the name."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise MetricsAddressError(
            f"Cannot listen for metrics on {address}: the path exists and is not a socket",
            "Remove it, or choose another with --metrics-bind",
        )
    if _is_live(address.path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    path.unlink(missing_ok=True)


def _is_live(path: str) -> bool:
    """Whether somebody listens on the socket file; in doubt, yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


_ANOTHER = "Choose another with --metrics-bind"
_ADVICE = {
    errno.EADDRINUSE: (
        "the address is already in use",
        f"{_ANOTHER} (127.0.0.1:0 takes a free port), or see what runs with: promgun ps",
    ),
    errno.EACCES: (
        "no permission",
        f"{_ANOTHER}: a port above 1023, or a socket in a folder you may write to",
    ),
    errno.EPERM: ("no permission", f"{_ANOTHER}, or start as a user who may do this"),
    errno.EADDRNOTAVAIL: ("this machine has no such address", f"{_ANOTHER}, e.g. {METRICS_ADDRESS}"),
    errno.EAFNOSUPPORT: (
        "this machine does not speak that protocol",
        f"{_ANOTHER}, e.g. {METRICS_ADDRESS}",
    ),
    errno.ENOENT: ("the folder does not exist", "Create it, or choose another path with --metrics-bind"),
}


def _refused(address: Address, error: OSError) -> MetricsAddressError:
    reason, hint = _ADVICE.get(error.errno or 0, (error.strerror or str(error), _ANOTHER))
    return MetricsAddressError(f"Cannot listen for metrics on {address}: {reason}", hint)


def describe(sock: socket.socket) -> str:
    """Return the address a listening socket really has.

    ``http://127.0.0.1:9164``, ``http://[::1]:9164`` or ``unix:/path``.
    """
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"http://{Address(host=name[0], port=name[1])}"


def close_and_unlink(sock: socket.socket) -> None:
    """Close a listening socket, and remove its socket file if nobody else listens there any more.

    Another process may hold the same listener, e.g. the other master during an upgrade; then the file is its
    own. So let the metrics process end before.
    """
    path = sock.getsockname() if sock.family == socket.AF_UNIX else ""
    sock.close()
    if not path or _is_live(path):
        return
    # It may be gone already, or stand in a folder that the process lost its right to when it changed user.
    with suppress(OSError):
        Path(path).unlink()


def metrics_url(listener: socket.socket) -> str:
    """Return the URL of the metrics page behind a listener; a Unix socket's path stays a path."""
    address = describe(listener)
    return address if address.startswith("unix:") else f"{address}/metrics"
