"""The HTTP server of the metrics process, put together."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from promgun.config.metrics_addresses import Address
from promgun.config.web_options import WebOptions
from promgun.endpoint.acceptor import Acceptor, ConnectionFactory, is_loopback
from promgun.endpoint.access import Access, Peer
from promgun.endpoint.connection import HttpConnection
from promgun.endpoint.connection_limit import ConnectionTable
from promgun.endpoint.counts import EndpointCounts
from promgun.endpoint.error_boundary import ErrorBoundary
from promgun.endpoint.limits import Limits
from promgun.endpoint.pages import build_site
from promgun.endpoint.security import Security, SecurityWatch
from promgun.endpoint.send_queues import SendQueues

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.core import Metric

__all__ = ["Limits", "MetricsEndpoint"]

logger = logging.getLogger("promgun.endpoint")


class MetricsEndpoint:
    """Serves ``/metrics``, ``/-/healthy``, ``/-/ready``, ``/status.json`` and the page that shows it.

    ``collect``, and ``status``, which gives the JSON, run on a thread of their own, one at a time; ``healthy`` and
    ``ready`` run in the event loop and must not block. Whatever they raise is counted in ``faults``, logged once, and
    answered with 503. ``web`` says how it is protected, ``counts`` takes what
    it counts of itself.
    """

    def __init__(
        self,
        collect: Callable[[], Sequence[Metric]],
        healthy: Callable[[], bool],
        ready: Callable[[], bool],
        status: Callable[[], str],
        limits: Limits = Limits(),  # noqa: B008 - frozen
        web: WebOptions = WebOptions(),  # noqa: B008 - frozen
        counts: EndpointCounts | None = None,
    ) -> None:
        self._collect = collect
        self._healthy = healthy
        self._ready = ready
        self._status = status
        self._limits = limits
        self._web = web
        self.faults = ErrorBoundary()
        self.counts = counts or EndpointCounts()

    async def serve(self, sockets: Iterable[socket.socket], stop: asyncio.Event) -> None:
        """Serve on listening, non-blocking sockets until ``stop`` is set; they stay open.

        Then nothing more is accepted, and running answers have ``stop_seconds`` to end.
        """
        sockets = tuple(sockets)
        limits = self._limits.within_open_files()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.faults.report)
        watch = SecurityWatch(self._web, self.counts)
        _warn_of_unprotected(sockets, watch.current)
        connections = ConnectionTable(limits, loop.time)
        queues = SendQueues(limits, loop.time)
        access = Access(lambda: watch.current, self._web.allowed_hosts, self.counts, loop.time)
        site, all_rounds = build_site(
            self._collect,
            self._healthy,
            self._ready,
            self._status,
            access=access,
            counts=self.counts,
            faults=self.faults,
            limits=limits,
        )
        buffer = memoryview(bytearray(limits.head_bytes + 1))

        def connect(peer: Peer) -> HttpConnection:
            return HttpConnection(peer, site, connections, queues, limits, buffer)

        factory = ConnectionFactory(connections, lambda: watch.current, connect, self.counts, limits)
        watching = loop.create_task(watch.watch(lambda: _retire_all(connections)))
        acceptors = [Acceptor(sock, factory) for sock in sockets]
        for acceptor in acceptors:
            acceptor.start()
        await stop.wait()
        watching.cancel()
        for acceptor in acceptors:
            await acceptor.stop()
        _retire_all(connections)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(connections.is_empty.wait(), limits.stop_seconds)
        for connection in connections:
            connection.evict()
        for rounds in all_rounds:
            rounds.close()
        access.close()
        factory.close()


def _retire_all(connections: ConnectionTable) -> None:
    """End every connection after its answer: what its client showed when it connected may no longer be valid."""
    for connection in connections:
        connection.retire()


def _warn_of_unprotected(sockets: Iterable[socket.socket], security: Security) -> None:
    unprotected = [
        Address(*sock.getsockname()[:2])
        for sock in sockets
        if sock.family != socket.AF_UNIX and not is_loopback(sock.getsockname()[0])
    ]
    if unprotected and not security.protects:
        logger.warning(
            "The metrics endpoint on %s is open to everybody who reaches it, without TLS or authentication: protect it "
            "with --metrics-web-config, or bind it to loopback",
            ", ".join(map(str, unprotected)),
        )
