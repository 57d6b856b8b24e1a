"""The HTTP server of the metrics process, put together."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from promgun.endpoint.acceptor import Acceptor
from promgun.endpoint.connection import HttpConnection
from promgun.endpoint.connection_limit import Gate
from promgun.endpoint.error_boundary import Faults
from promgun.endpoint.limits import Limits
from promgun.endpoint.pages import build_site

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.core import Metric

__all__ = ["Limits", "MetricsEndpoint"]


class MetricsEndpoint:
    """Serves ``/metrics``, ``/-/healthy``, ``/-/ready``, ``/status.json`` and the page that shows it.

    ``collect``, and ``status``, which gives the JSON, run on a thread of their own, one at a time; ``healthy`` and
    ``ready`` run in the event loop and must not block. Whatever they raise is counted in ``faults``, logged once, and
    answered with 503.
    """

    def __init__(
        self,
        collect: Callable[[], Sequence[Metric]],
        healthy: Callable[[], bool],
        ready: Callable[[], bool],
        status: Callable[[], str],
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._collect = collect
        self._healthy = healthy
        self._ready = ready
        self._status = status
        self._limits = limits
        self.faults = Faults()

    async def serve(self, sockets: Iterable[socket.socket], stop: asyncio.Event) -> None:
        """Serve on listening, non-blocking sockets until ``stop`` is set; they stay open.

        Then nothing more is accepted, and running answers have ``stop_seconds`` to end.
        """
        limits = self._limits.within_open_files()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.faults.report)
        gate = Gate(limits, loop.time)
        site, all_rounds = build_site(self._collect, self._healthy, self._ready, self._status, self.faults, limits)
        buffer = memoryview(bytearray(limits.head_bytes + 1))
        acceptors = [
            Acceptor(sock, gate, lambda address: HttpConnection(address, site, gate, limits, buffer))
            for sock in sockets
        ]
        for acceptor in acceptors:
            acceptor.start()
        await stop.wait()
        for acceptor in acceptors:
            await acceptor.stop()
        for connection in gate:
            connection.retire()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(gate.is_empty.wait(), limits.stop_seconds)
        for connection in gate:
            connection.evict()
        for rounds in all_rounds:
            rounds.close()
