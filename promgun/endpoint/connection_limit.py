"""Who may stay connected, and who makes room for whom."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from promgun.endpoint.limits import Limits

_V4_IN_V6 = bytes(10) + b"\xff\xff"


class Client(Protocol):
    """What the table knows of a connection."""

    @property
    def address(self) -> str:
        """Whose it is, from :func:`address_of`."""

    def evict(self) -> None:
        """End at once; the table has forgotten it already."""

    def retire(self) -> None:
        """End after the answer that is being given: the server stops."""


def address_of(family: int, peer: Any) -> str:
    """Return whom a connection counts for: an IPv4 address, an IPv6 /64 network, ``""`` for Unix sockets.

    A /64 is what one host gets (RFC 4291 2.5.4), so counting its addresses singly would count nothing.
    ``peer`` is what ``accept`` returned beside the socket.
    """
    if family == socket.AF_UNIX:
        return ""
    host = str(peer[0])
    if family != socket.AF_INET6:
        return host
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    if packed.startswith(_V4_IN_V6):
        return socket.inet_ntoa(packed[len(_V4_IN_V6) :])
    return packed[:8].hex()


class ConnectionTable:
    """The connections of one endpoint, under the rules that ``Limits`` states."""

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self._limits = limits
        self._now = now
        self._clients: set[Client] = set()
        # Since when each waits, by address. A dictionary keeps its order, so the oldest stands first.
        self._waiting: dict[str, dict[Client, float]] = {}
        self.is_empty = asyncio.Event()
        self.is_empty.set()

    def __iter__(self) -> Iterator[Client]:
        return iter(tuple(self._clients))

    @property
    def is_crowded(self) -> bool:
        """Whether answers should end their connections, so that places go round."""
        return len(self._clients) * 4 >= self._limits.connections * 3

    def has_room(self) -> bool:
        """Whether one more may come in; a waiting client may have to leave for it."""
        return len(self._clients) < self._limits.connections or self._victim() is not None

    def enter(self, client: Client) -> None:
        """Count a client that has just connected, at the cost of another if need be."""
        if len(self._clients) >= self._limits.connections and (victim := self._victim()):
            self.leave(victim)
            victim.evict()
        self._clients.add(client)
        self.is_empty.clear()

    def leave(self, client: Client) -> None:
        """Forget a client; twice does no harm."""
        self._clients.discard(client)
        self.stop_waiting(client)
        if not self._clients:
            self.is_empty.set()

    def start_waiting(self, client: Client) -> None:
        """From now on the next move is the client's."""
        if client in self._clients:
            self.stop_waiting(client)
            self._waiting.setdefault(client.address, {})[client] = self._now()

    def stop_waiting(self, client: Client) -> None:
        """Note that the client has made its move."""
        waiting = self._waiting.get(client.address, {})
        waiting.pop(client, None)
        if not waiting:
            self._waiting.pop(client.address, None)

    def _victim(self) -> Client | None:
        """Find the longest waiting client of the address that has most of them, unless it has not waited long
        enough.
        """
        if not self._waiting:
            return None
        client, since = next(iter(max(self._waiting.values(), key=len).items()))
        return client if self._now() - since >= self._limits.grace_seconds else None
