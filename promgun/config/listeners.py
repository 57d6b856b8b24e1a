"""Listening sockets of the metrics endpoint: bound all or none, kept where an address stays, closed, shown."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType

from promgun.config.metrics_addresses import Address, SocketAddress, check_replaceable, refusal, resolve
from promgun.store.descriptor import identity_of

BACKLOG = 512


class Listener(socket.socket):
    """A listening socket in a process whose application may close all descriptors and reuse the number: nothing is done
    to the number then.
    """

    def __init__(self, family: int = -1, kind: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        super().__init__(family, kind, proto, fileno)
        self._identity = identity_of(os.fstat(self.fileno()))

    @property
    def is_ours(self) -> bool:
        """Whether the number is open and still means this socket."""
        try:
            return identity_of(os.fstat(self.fileno())) == self._identity
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket, if it is open and ours."""
        if not self.is_ours:
            self.detach()
        super().close()


def is_lost(listener: socket.socket) -> bool:
    """Whether somebody has closed a listener's descriptor behind its back."""
    return isinstance(listener, Listener) and not listener.is_ours


#: The sockets, each under the address that was asked for (port 0 included), in the order in which they were named.
Listeners = Mapping[SocketAddress, socket.socket]
NO_LISTENERS: Listeners = MappingProxyType({})


def bind_all(
    addresses: Iterable[Address], *, keep: Listeners = NO_LISTENERS, uid: int | None = None, gid: int | None = None
) -> Listeners:
    """Listen on all ``addresses``, or raise ``MetricsAddressError`` and leave nothing behind.

    An address named twice is bound once. A listener of ``keep`` is reused if ``addresses`` has the address it was asked
    for, or the one that it really has; listeners of ``keep`` are never closed here. One that is no longer wanted does
    not block its port: 127.0.0.1:9164 can become :9164. ``uid`` and ``gid`` become the owner of new socket files.
    """
    wanted: dict[SocketAddress, Address] = {}
    for address in addresses:
        wanted.setdefault(resolve(address), address)
    real = _places(keep.values())
    held = {place: sock for place in wanted if (sock := keep.get(place) or real.get(place)) and _can_be_reached(sock)}
    dropped = [sock for sock in keep.values() if sock not in held.values()]
    listeners: dict[SocketAddress, socket.socket] = {}
    with ExitStack() as undo:
        for place, address in wanted.items():
            if place not in held:
                listeners[place] = bind(address, uid=uid, gid=gid, beside=dropped)
                undo.callback(close_and_unlink, listeners[place])
            elif held[place] not in listeners.values():
                listeners[place] = held[place]
        undo.pop_all()
    return MappingProxyType(listeners)


def _places(listeners: Iterable[socket.socket]) -> dict[SocketAddress, socket.socket]:
    """Return listeners by the address that they really have."""
    return {SocketAddress((sock.family, sock.getsockname())): sock for sock in listeners}


def _can_be_reached(listener: socket.socket) -> bool:
    """Tell whether clients still find a listener: the file of a Unix socket may have been removed."""
    return listener.family != socket.AF_UNIX or _is_live(listener.getsockname())


def bind(
    address: Address,
    *,
    backlog: int = BACKLOG,
    uid: int | None = None,
    gid: int | None = None,
    beside: Iterable[socket.socket] = (),
) -> socket.socket:
    """Listen on ``address``: a non-blocking socket that no child inherits unasked.

    SO_REUSEPORT stays off, so that a second server is refused instead of sharing the scrapes. ``uid`` and ``gid``
    become the owner of a Unix socket's file; a file that nobody listens on any more is replaced. Listeners of ours
    that are about to be closed (``beside``) may have the same port. Raises ``MetricsAddressError`` when the address
    cannot be had.
    """
    place = resolve(address)
    try:
        return _bind_path(address, place.path, backlog, uid, gid) if place.path else _bind_port(place, backlog, beside)
    except OSError as error:
        raise refusal(address, error) from error


def _bind_port(place: SocketAddress, backlog: int, beside: Iterable[socket.socket]) -> socket.socket:
    try:
        return _listen(place, backlog)
    except OSError as error:
        port = place.sockaddr[1]
        ours = [sock for sock in beside if sock.family == place.family and sock.getsockname()[1] == port]
        if error.errno != errno.EADDRINUSE or not ours:
            raise
    # Linux checks bind(2) and listen(2) against each listener on the port; it lets two that have SO_REUSEPORT, of one
    # user, have addresses that overlap.
    _share_port(ours, share=True)
    try:
        sock = _listen(place, backlog, share=True)
    finally:
        _share_port(ours, share=False)
    _share_port([sock], share=False)
    return sock


def _share_port(listeners: Iterable[socket.socket], *, share: bool) -> None:
    for sock in listeners:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)


def _listen(place: SocketAddress, backlog: int, *, share: bool = False) -> socket.socket:
    with ExitStack() as undo:
        sock = undo.enter_context(Listener(place.family, socket.SOCK_STREAM))
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if share:
            _share_port([sock], share=True)
        sock.bind(place.sockaddr)
        sock.listen(backlog)
        undo.pop_all()
    return sock


def _bind_path(address: Address, name: str, backlog: int, uid: int | None, gid: int | None) -> socket.socket:
    path = Path(name)
    if check_replaceable(address, path):
        if _is_live(name):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        path.unlink(missing_ok=True)
    with ExitStack() as undo:
        sock = undo.enter_context(Listener(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.settimeout(0)
        sock.bind(name)
        undo.callback(path.unlink)
        if uid is not None or gid is not None:
            os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid, follow_symlinks=False)
        sock.listen(backlog)
        undo.pop_all()
    return sock


def _is_live(path: str) -> bool:
    """Whether somebody listens on the socket file; in doubt, yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


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

    Another process may hold the same listener, e.g. the other master during an upgrade; then the file stays. So end the
    metrics process, which holds it too, before you call this.
    """
    path = sock.getsockname() if sock.family == socket.AF_UNIX and not is_lost(sock) else ""
    sock.close()
    if not path or _is_live(path):
        return
    # It may be gone already, or lie in a folder in which the process may not write since it changed its user.
    with suppress(OSError):
        Path(path).unlink()


def metrics_url(listener: socket.socket, *, tls: bool = False) -> str:
    """Return the URL of the metrics page behind a listener; a Unix socket's path stays a path.

    ``tls`` says whether TCP listeners speak TLS.
    """
    address = describe(listener)
    if tls:
        address = address.replace("http://", "https://", 1)
    return address if address.startswith("unix:") else f"{address}/metrics"
