"""What clients have not read yet: bounded, for one connection and for all together."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from promgun.endpoint.limits import Limits

# linux/sockios.h: what has not been sent, without what was sent and not yet acknowledged. An acknowledgement may be
# delayed by 40 ms, which a client that reads well should not wait for.
_SIOCOUTQNSD = 0x894B
# sys/socket.h of macOS
_SO_NWRITE = 0x1024
_MEASURE_SECONDS = 0.01
# Of type str for mypy, which would take the branches of other platforms for dead.
_SYSTEM: str = sys.platform


def unsent_bytes(sock: socket.socket) -> int:
    """Return how many bytes of a socket the peer's kernel does not have yet (TCP), or its process (Unix sockets)."""
    return _ask(sock, termios.TIOCOUTQ)


def not_yet_sent(sock: socket.socket) -> int:
    """Return how many bytes of a socket wait for the peer to make room."""
    return _ask(sock, termios.TIOCOUTQ if sock.family == socket.AF_UNIX else _SIOCOUTQNSD)


def drop_unsent(sock: socket.socket) -> None:
    """Have the kernel forget what is unsent when the socket is closed, and reset the connection (socket(7))."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _ask(sock: socket.socket, request: int) -> int:
    try:
        if _SYSTEM == "linux":
            return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), request, bytes(4)))[0])
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE) if _SYSTEM == "darwin" else 0
    except (OSError, ValueError):
        # It is closed already.
        return 0


class Sender(Protocol):
    """What the queues know of a connection."""

    @property
    def address(self) -> str:
        """Whose it is."""

    def unsent(self) -> int:
        """Bytes that it was given and the client does not have."""

    def evict(self) -> None:
        """End at once, and drop what is unsent."""


class _Queue:
    __slots__ = ("bytes", "since")

    def __init__(self, now: float) -> None:
        self.bytes = 0
        #: When the client last took something.
        self.since = now


class SendQueues:
    """The unsent bytes of all connections, at most ``limits.unsent_bytes``.

    Where that is reached, the address with most of them loses the connection that has taken nothing for longest, if it
    had ``grace_seconds`` to take something.
    """

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self._limits = limits
        self._now = now
        self._queues: dict[Sender, _Queue] = {}
        self._total = 0
        self._measured = float("-inf")

    def add(self, sender: Sender, number: int) -> bool:
        """Count bytes that are about to be written; returns false, and counts none, while there is no room for them."""
        if self._total + number > self._limits.unsent_bytes:
            self._measure()
        while self._total + number > self._limits.unsent_bytes:
            victim = self._victim(sender)
            if victim is None:
                return False
            self.forget(victim)
            victim.evict()
        queue = self._queues.setdefault(sender, _Queue(self._now()))
        queue.bytes += number
        self._total += number
        return True

    def forget(self, sender: Sender) -> None:
        """Count a connection no longer."""
        queue = self._queues.pop(sender, None)
        if queue is not None:
            self._total -= queue.bytes

    def _measure(self) -> None:
        now = self._now()
        if now - self._measured < _MEASURE_SECONDS:
            return
        self._measured = now
        for sender, queue in tuple(self._queues.items()):
            left = sender.unsent()
            if left < queue.bytes:
                queue.since = now
                self._total -= queue.bytes - left
                queue.bytes = left
            if not left:
                del self._queues[sender]

    def _victim(self, asking: Sender) -> Sender | None:
        by_address: dict[str, int] = {}
        for sender, queue in self._queues.items():
            by_address[sender.address] = by_address.get(sender.address, 0) + queue.bytes
        greediest = max(by_address, key=by_address.__getitem__, default=None)
        candidates = [
            (queue.since, id(sender), sender) for sender, queue in self._queues.items() if sender.address == greediest
        ]
        since, _, victim = min(candidates, default=(0.0, 0, None))
        if victim is None or victim is asking or self._now() - since < self._limits.grace_seconds:
            return None
        return victim
