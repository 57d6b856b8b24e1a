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
#: While nobody waits longer than a tick: one connection in so many is asked about, and one a second.
_ONE_IN = 16
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


def arrival_observer(
    observe: Callable[[float], None], ask: Callable[[Any], float | None] = kernel_wait
) -> Callable[..., None]:
    """Return a function that observes how long a connection waited: it takes the client, the current time, and whether
    somebody is likely to have waited; call it right after accept.

    It asks the kernel about each connection while one had waited for more than a tick (1 to 10 ms), or is likely to
    have. While nobody waits, asking about every one would cost more than anything else that is measured of a request.
    """
    skipped = _ONE_IN
    next_ns = 0

    def observe_arrival(client: Any, now_ns: int, likely: bool = False) -> None:  # noqa: FBT001, FBT002 - hot path
        nonlocal skipped, next_ns
        if skipped < _ONE_IN and now_ns < next_ns and not likely:
            skipped += 1
            return
        wait = ask(client)
        if wait is None:
            return
        skipped, next_ns = 1 if wait <= _TICK else _ONE_IN, now_ns + _PAUSE_NS
        observe(wait if wait > 0 else 0.0)

    return observe_arrival


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
