"""Taking connections off a listening socket, no faster than there is room for them."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from promgun.endpoint.access import Peer
from promgun.endpoint.answers import OUT_OF_DESCRIPTORS
from promgun.endpoint.connection import CHUNK
from promgun.endpoint.connection_limit import address_of
from promgun.endpoint.tls_layer import TlsLayer
from promgun.metrics.late_label_values import EndpointRefusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from promgun.endpoint.connection import HttpConnection
    from promgun.endpoint.connection_limit import ConnectionTable
    from promgun.endpoint.counts import EndpointCounts
    from promgun.endpoint.limits import Limits
    from promgun.endpoint.security import Security

logger = logging.getLogger("promgun.endpoint")

# An evicted connection is closed only in the loop's next turn, so one turn must not open more files than RESERVED_FILES
# covers.
_AT_A_TURN = 8
_FULL_PAUSE = 0.02
_NO_RESOURCES_PAUSE = 1.0
# The largest record of TLS, and then some (RFC 8446 5.2).
_RECORD = 32 * 1024


class ConnectionFactory:
    """Makes a connection of each socket that was accepted; all listeners of an endpoint share one factory.

    One descriptor is kept in reserve: when all others are in use, it serves to tell a client so.
    """

    def __init__(
        self,
        connections: ConnectionTable,
        security: Callable[[], Security],
        connection: Callable[[Peer], HttpConnection],
        counts: EndpointCounts,
        limits: Limits,
    ) -> None:
        self.connections = connections
        self._security = security
        self._connection = connection
        self._counts = counts
        # Linux reserves twice what it is told (socket(7)); what is handed to asyncio is added to that.
        self._send_buffer = (limits.unsent_connection_bytes - 2 * CHUNK) // 2
        self._buffer = memoryview(bytearray(_RECORD))
        self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give up the reserve."""
        os.close(self._reserve)

    def make(self, sock: socket.socket, peer: Any) -> tuple[HttpConnection, asyncio.BaseProtocol]:
        """Return the connection, and what asyncio is to call."""
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        on_unix = sock.family == socket.AF_UNIX
        on_loopback = not on_unix and is_loopback(sock.getsockname()[0])
        connection = self._connection(Peer(address_of(sock.family, peer), on_loopback, on_unix))
        tls = None if on_unix else self._security().tls
        return connection, connection if tls is None else TlsLayer(connection, tls, self._counts, self._buffer)

    def refuse_one(self, listener: socket.socket) -> bool:
        """Answer one client that no descriptor is left for; returns whether there was one."""
        os.close(self._reserve)
        try:
            sock, _ = listener.accept()
        except OSError:
            return False
        else:
            with sock, suppress(OSError):
                self._counts.refuse(EndpointRefusal.DESCRIPTORS)
                sock.settimeout(0)
                if sock.family == socket.AF_UNIX or self._security().tls is None:
                    sock.send(OUT_OF_DESCRIPTORS)
                    sock.shutdown(socket.SHUT_WR)
                    # What is unread when a socket is closed makes the kernel drop the answer (RFC 9112 9.6).
                    sock.recv(_RECORD)
            return True
        finally:
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


class Acceptor:
    """Accepts on one listening socket, and pauses while there are too many connections or no resources left.

    asyncio's own accept loop is not used: it goes on accepting when a server has enough, and on EMFILE it
    calls ``accept`` another ``backlog`` times and schedules as many restarts (Python 3.10 to 3.13).
    """

    def __init__(self, listener: socket.socket, factory: ConnectionFactory) -> None:
        self._listener = listener
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._has_complained = False

    def start(self) -> None:
        """Begin, or go on after a pause."""
        self._loop.add_reader(self._listener, self._accept)

    async def stop(self) -> None:
        """Accept nothing more; connections in the kernel's queue stay there for whoever shares the listener."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        await asyncio.gather(*self._opening)

    def _accept(self) -> None:
        for _ in range(_AT_A_TURN):
            if not self._factory.connections.has_room():
                self._rest(_FULL_PAUSE)
                return
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._complain(error)
                if error.errno == errno.EMFILE and self._factory.refuse_one(self._listener):
                    continue
                self._rest(_NO_RESOURCES_PAUSE)
                return
            self._open(sock, peer)

    def _open(self, sock: socket.socket, peer: Any) -> None:
        try:
            connection, protocol = self._factory.make(sock, peer)
        except OSError:
            # The client has gone meanwhile.
            sock.close()
            return
        self._factory.connections.enter(connection)
        task = self._loop.create_task(self._connect(connection, protocol, sock))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, connection: HttpConnection, protocol: asyncio.BaseProtocol, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError:
            # The client has gone meanwhile.
            self._factory.connections.leave(connection)
            sock.close()

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self.start)

    def _complain(self, error: OSError) -> None:
        if not self._has_complained:
            logger.warning("The metrics endpoint cannot accept connections for now: %s", error.strerror)
        self._has_complained = True


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address, given as ``getsockname`` tells it."""
    found = ipaddress.ip_address(host.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return bool((mapped or found).is_loopback)
