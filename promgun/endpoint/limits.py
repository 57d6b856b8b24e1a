"""How much the metrics endpoint takes from its clients."""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace

from promgun.system.kept_files import MOST_KEPT, most_kept

# What the process itself keeps open: the standard streams, the event loop's three, the listeners, the files
# of the store while they are read, and connections whose close is under way.
RESERVED_FILES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Numbers of connections, bytes, and seconds (every name that ends in ``_seconds``).

    A connection *waits* while the next move is its client's: no complete request head yet, an answer that
    the client does not read, or a close that it has not confirmed. Such connections cost an attacker nothing,
    so they make room for others. One whose request is complete is cheap for us, as all share one page, and is
    never sent away: a thousand scrapes at once are a thousand answers.

    There are at most ``connections``. At that number a newcomer takes the place of the one that waits longest
    among those of the address that has most of them waiting (an IPv6 /64 counts as one address, all Unix
    sockets as another), if that one had ``grace_seconds`` to move. So an address that holds many connections loses one
    to a newcomer, even to one of its own. If there is none, newcomers stay in the kernel's queue for the moment, and
    answers end their connections (``Connection: close``) from three quarters of the number on. A separate cap for each
    address would turn away the proxy that all scrapes come through.

    ``head_seconds`` runs from the connection or the first byte of a later request to the end of its head,
    ``idle_seconds`` between requests, ``write_seconds`` from the first byte of an answer to its last,
    ``linger_seconds`` from our end of a connection to the client's (at most ``linger_bytes`` are thrown away
    meanwhile), ``collect_seconds`` from a request for metrics to its page, ``pause_seconds`` between two
    collections at most, and ``stop_seconds`` from the request to stop to the end. A request may ask for ``names``
    names, and a collection serves ``filters`` different sets of them, by address in turn; ``waiting_filters`` may wait
    for that, and beyond them the address with most waiting loses one.

    What a client does not read stays in the kernel's memory: at most ``unsent_connection_bytes`` for one connection,
    whose next answer waits until the last has left, and ``unsent_bytes`` for all. Where that is reached, the connection
    that has read nothing for longest makes room, among those of the address with most unread, as above.
    """

    connections: int = 2048
    grace_seconds: float = 0.25
    head_bytes: int = 8 * 1024
    head_seconds: float = 5.0
    idle_seconds: float = 75.0
    write_seconds: float = 10.0
    linger_seconds: float = 2.0
    linger_bytes: int = 256 * 1024
    collect_seconds: float = 10.0
    pause_seconds: float = 0.25
    stop_seconds: float = 1.0
    names: int = 64
    filters: int = 16
    waiting_filters: int = 256
    unsent_connection_bytes: int = 256 * 1024
    unsent_bytes: int = 64 * 1024 * 1024

    def within_open_files(self) -> Limits:
        """Return these limits with no more connections than RLIMIT_NOFILE and kept files leave room for."""
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if allowed == resource.RLIM_INFINITY:
            return self
        return replace(self, connections=max(1, min(self.connections, allowed - RESERVED_FILES - most_kept())))


def raise_open_files(limits: Limits) -> None:
    """Lift the soft limit of open files to what ``limits`` and kept files need, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + RESERVED_FILES + MOST_KEPT
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
