"""Addresses of the metrics endpoint: how they are written, what they resolve to, and whether they could be served."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from promgun.errors import MetricsAddressError
from promgun.metrics.defaults import METRICS_ADDRESS, METRICS_PORT

_FORMS = "Write HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH"
_HIGHEST_PORT = 65535
# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on macOS and the BSDs, the ending NUL included.
_LONGEST_PATH = 103
#: Ports below it need a privilege (IPPORT_RESERVED; Linux can move the limit by ip_unprivileged_port_start).
_RESERVED = 1024


class Address:
    """Where to listen, as it was written: ``host`` and ``port`` (0: any free one), or the ``path`` of a Unix socket."""

    __slots__ = ("host", "path", "port")

    def __init__(self, host: str = "", port: int = 0, path: str = "") -> None:
        self.host = host
        self.port = port
        self.path = path

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SocketAddress(tuple[int, Any]):
    """What bind(2) is given, so that ``localhost`` and ``127.0.0.1`` are equal. ``sockaddr`` is as in Python's
    ``socket``: a tuple that begins with host and port, or an absolute path.
    """

    __slots__ = ()

    @property
    def family(self) -> int:
        """The family of addresses."""
        return self[0]

    @property
    def sockaddr(self) -> Any:
        """The address in its family."""
        return self[1]

    @property
    def path(self) -> str:
        """The path of a Unix socket, empty for TCP."""
        return self.sockaddr if self.family == socket.AF_UNIX else ""


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT``, ``HOST`` (port 9164), ``[IPV6]:PORT``, ``:PORT`` (all of IPv4) or ``unix:PATH``.

    Raises ``MetricsAddressError`` for anything else, a port without a host included. No name is looked up.
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
    _check_length(path)
    return Address(path=path)


def _check_length(path: str) -> None:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise MetricsAddressError(
            f"The socket path {path} is longer than {_LONGEST_PATH} bytes, the most a Unix socket can have",
            "Choose a shorter one, e.g. in /run or /tmp",
        )


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
    if host and not _is_host_name(host):
        raise _unreadable(text)
    if not host and not colon:
        raise _unreadable(text)
    return host or "0.0.0.0", port  # noqa: S104 - asked for in so many words by ":PORT"


def _is_host_name(host: str) -> bool:
    """Whether these are ASCII letters, digits, ``_``, and between them ``.`` and ``-``."""
    bare = host.replace("_", "").replace(".", "").replace("-", "")
    return host.isascii() and (bare.isalnum() or not bare) and not {host[0], host[-1]} & {".", "-"}


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


def resolve(address: Address) -> SocketAddress:
    """Return what ``address`` stands for now: names are looked up, a relative path begins in the working directory.

    A name with both IPv4 and IPv6 addresses stands for its IPv4 one. Raises ``MetricsAddressError`` for an unknown host
    and for a path that is too long for a socket.
    """
    if address.path:
        path = str(Path(address.path).absolute())
        _check_length(path)
        return SocketAddress((socket.AF_UNIX, path))
    # As bytes if that is possible: for text Python (3.10 to 3.14) imports the IDNA codec, 5 ms.
    host = address.host.encode() if address.host.isascii() else address.host
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise MetricsAddressError(
            f"Cannot listen for metrics on {address}: the host {address.host!r} is not known here",
            "Use an address of this machine, e.g. 127.0.0.1",
        ) from error
    family, *_, sockaddr = min(found, key=lambda info: info[0] is not socket.AF_INET)
    return SocketAddress((family, sockaddr))


def check_addresses(addresses: Iterable[Address], application: Container[Any] = ()) -> None:
    """Raise ``MetricsAddressError`` for the first address that could not be served even if nobody else listens there.

    ``application`` are the application's own addresses, as Gunicorn parses them. No address is taken, no file made.
    """
    for address in addresses:
        place = resolve(address)
        if place.path:
            _check_folder(address, Path(place.path))
        elif error := probe(place.family, place.sockaddr):
            raise refusal(address, error)
        if place.path in application if place.path else place.sockaddr[1] and place.sockaddr[:2] in application:
            raise MetricsAddressError(
                f"Cannot listen for metrics on {address}: the application is served there", _ANOTHER
            )


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


def _check_folder(address: Address, path: Path) -> None:
    try:
        check_replaceable(address, path)
        # What bind(2) would find, in its order.
        if not stat.S_ISDIR(path.parent.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise refusal(address, error) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise refusal(address, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def check_replaceable(address: Address, path: Path) -> bool:
    """Return whether a socket file is there that could be replaced; raises ``MetricsAddressError`` for another kind of
    file, ``OSError`` where the path leads nowhere.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise MetricsAddressError(
            f"Cannot listen for metrics on {address}: the path exists and is not a socket",
            "Remove it, or choose another with --metrics-bind",
        )
    return True


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
    errno.ENOTDIR: ("the path goes through a file that is not a folder", "Choose another path with --metrics-bind"),
}


def refusal(address: Address, error: OSError) -> MetricsAddressError:
    """Say in one line why ``address`` cannot be had, and what to do next."""
    reason, hint = _ADVICE.get(error.errno or 0, (error.strerror or str(error), _ANOTHER))
    return MetricsAddressError(f"Cannot listen for metrics on {address}: {reason}", hint)
