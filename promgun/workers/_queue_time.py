"""How long a request waited before a worker took it: in the kernel's accept queue, and since the proxy stamped it."""

from __future__ import annotations

import ipaddress
import socket
import sys
import time
from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any

#: Bytes of struct tcp_info up to tcpi_bytes_received (linux/tcp.h), and the two fields that are looked at.
_TCP_INFO_SIZE = 136
_LAST_DATA_AND_BYTES_RECEIVED = Struct("=52xI72xQ").unpack
#: The client has sent nothing: there is no wait, and it says nothing about the connections after it.
NOTHING_SENT = -1.0
#: A kernel tick in seconds, at the usual 250 a second: TCP_INFO reports shorter waits as 0. It is below the first
#: bucket's bound.
_TICK = 0.004
TICK_NS = 4_000_000
#: One connection in so many is asked about; those that were not are remembered for so many questions.
_ONE_IN = 32
_MOST_CREDIT = 8 * _ONE_IN
_PAUSE_NS = 1_000_000_000
ON_LINUX = sys.platform == "linux"
_HEADERS = ("HTTP_X_REQUEST_START", "HTTP_X_QUEUE_START")
#: Seconds; an older stamp comes from a clock that is wrong.
_LONGEST = 3600.0
_MILLISECONDS = 1e11
_MICROSECONDS = 1e14


def kernel_wait(client: Any) -> float | None:
    """Return the seconds for which the first bytes of a connection lay in the kernel, asked right after accept.

    For TCP connections on Linux only (tcp(7): TCP_INFO, milliseconds). Returns ``NOTHING_SENT`` when the client has
    sent nothing yet, so that nobody waits, and ``None`` when the kernel does not say.
    """
    if not ON_LINUX:
        return None
    try:
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:
        return None
    if len(info) < _TCP_INFO_SIZE:
        return None
    waited, received = _LAST_DATA_AND_BYTES_RECEIVED(info)
    return waited / 1000 if received else NOTHING_SENT


class ArrivalObserver:
    """Observes how long connections waited: call it right after accept with the client and the current time.

    Asking the kernel costs more than all else that is measured of a request, so of many connections one in 32 is asked
    about at most, whether or not they wait. A calm time saves up for the next crowd: while nobody waits longer
    than a tick (1 to 10 ms) half of those are asked about, and one a second; as soon as one has waited, or probably
    has, each connection, until what was saved is spent.

    ``left`` counts down to the next connection that is asked about, and one after ``ask_at`` is asked about as well: a
    worker class may do this without a call.
    """

    __slots__ = ("_ask", "_credit", "_drawn", "_observe", "ask_at", "left", "pause_ends")

    def __init__(self, observe: Callable[[float], None], ask: Callable[[Any], float | None] = kernel_wait) -> None:
        self._observe = observe
        self._ask = ask
        #: in connections, of which asking about one costs as many as it stands for
        self._credit = _MOST_CREDIT
        self._drawn = self.left = 1
        #: nanoseconds
        self.ask_at = self.pause_ends = 0

    def __call__(self, client: Any, now_ns: int) -> None:
        """Observe how long ``client`` waited, if it is asked about."""
        self.left = left = self.left - 1
        if left <= 0 or now_ns >= self.ask_at:
            self.ask(client, now_ns)

    def ask(self, client: Any, now_ns: int) -> None:
        """Ask about a connection that was taken off ``left``, unless there were too many."""
        credit = min(_MOST_CREDIT, self._credit + self._drawn - self.left)
        wait = None
        if credit >= _ONE_IN:
            credit -= _ONE_IN
            wait = self._ask(client)
            self.ask_at = self.pause_ends = now_ns + _PAUSE_NS
        self._credit = credit
        self._drawn = self.left = 2 * _ONE_IN if wait is not None and wait <= _TICK else max(1, _ONE_IN - credit)
        if wait is not None:
            self._observe(wait if wait > 0 else 0.0)


def proxy_wait(environ: Mapping[str, Any], clock: Callable[[], float] = time.time) -> float | None:
    """Return the seconds since a proxy stamped the request; ``None`` without a plausible stamp.

    The headers are X-Request-Start and X-Queue-Start, with or without ``t=``, in seconds, milliseconds or microseconds
    since the epoch.
    """
    for header in _HEADERS:
        text = environ.get(header)
        if text:
            return _since(text, clock())
    return None


def _since(text: str, now: float) -> float | None:
    try:
        stamp = float(str(text).strip().removeprefix("t="))
    except ValueError:
        return None
    if stamp > _MICROSECONDS:
        stamp /= 1e6
    elif stamp > _MILLISECONDS:
        stamp /= 1e3
    wait = now - stamp
    return wait if 0.0 <= wait <= _LONGEST else None


def forwarded_client(environ: Mapping[str, Any]) -> str:
    """Return the client that the proxy behind a Unix socket names: the last of X-Forwarded-For, which the proxy itself
    wrote. Such a peer is trusted, as in Gunicorn.
    """
    return str(environ.get("HTTP_X_FORWARDED_FOR", "")).rpartition(",")[2].strip()


class TrustedPeers:
    """The peers whose stamps are believed: those in Gunicorn's ``forwarded_allow_ips``, and Unix sockets."""

    def __init__(self, cfg: Any) -> None:
        allowed = cfg.forwarded_allow_ips
        self._everybody = "*" in allowed
        self._networks = [ipaddress.ip_network(item) for item in allowed if item != "*"]
        self._known: dict[str, bool] = {}

    def __contains__(self, peer: Any) -> bool:
        if self._everybody or not isinstance(peer, tuple):
            return True
        host = peer[0]
        known = self._known.get(host)
        if known is None:
            if len(self._known) > 1024:  # noqa: PLR2004 - clients come and go: the cache must not grow with them
                self._known.clear()
            known = self._known[host] = self._is_allowed(host)
        return known

    def _is_allowed(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._networks)
