"""The metrics endpoint on real sockets, in a thread of the test, and clients that speak to it byte by byte."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from promgun.config.listeners import bind
from promgun.config.metrics_addresses import parse_address
from promgun.config.web_options import WebOptions
from promgun.endpoint.limits import Limits
from promgun.endpoint.server import MetricsEndpoint
from tests.support.http_client import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from prometheus_client.core import Metric
    from typing_extensions import Self

    from tests.support.http_client import Address

    Collect = Callable[[], Sequence[Metric]]

#: Within this a good scrape is answered, whatever else goes on. It takes some hundredths of a second; one that is held
#: up waits for a minute where limits are PATIENT, so there is room for a busy machine.
PROMPT = 8.0
PATIENT = Limits(head_seconds=60, write_seconds=60, stop_seconds=60)


def families() -> list[Metric]:
    """Return two small families."""
    counter = CounterMetricFamily("apples", "Apples eaten.", labels=["kind"])
    counter.add_metric(["red"], 3)
    return [counter, GaugeMetricFamily("pears", "Pears in stock.", 4)]


def huge_families() -> list[Metric]:
    """Return a page of some 20 MB, more than the kernel takes from a server whose client does not read."""
    return [GaugeMetricFamily(f"huge_{number}", "x" * 1_000_000, 1) for number in range(20)]


class Endpoint:
    """A running endpoint; ``address`` is where, and ``endpoint`` the object itself."""

    def __init__(
        self,
        collect: Collect = families,
        *,
        healthy: Callable[[], bool] = lambda: True,
        ready: Callable[[], bool] = lambda: True,
        status: Callable[[], str] = lambda: "{}",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        bind_to: str = "127.0.0.1:0",
        web: WebOptions = WebOptions(),  # noqa: B008 - frozen
    ) -> None:
        self.endpoint = MetricsEndpoint(collect, healthy, ready, status, limits, web)
        self.socket = bind(parse_address(bind_to))
        self.address: Address = (
            self.socket.getsockname()[:2] if self.socket.family != socket.AF_UNIX else (self.socket.getsockname())
        )
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._has_started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._has_started.set()
        await self.endpoint.serve([self.socket], self._stop)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._has_started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.begin_to_stop()
        self.wait()
        self.socket.close()

    def begin_to_stop(self) -> None:
        """Ask it to end; answers that are ready may still be given."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)

    def wait(self) -> None:
        """Wait for its end, which must come."""
        self._thread.join(10)
        assert not self._thread.is_alive()


def converse(address: Address, *parts: bytes, source: str | None = None, timeout: float = 10) -> bytes:
    """Send these bytes, then read to the end of the connection, which is the server's to make."""
    with Connection(address, source, timeout) as connection:
        for part in parts:
            connection.socket.sendall(part)
        return read_all(connection.socket)


def read_all(sock: socket.socket) -> bytes:
    """Read until the peer ends the connection; a reset is an error, as it may have cost an answer."""
    received = bytearray()
    while data := sock.recv(65536):
        received += data
    return bytes(received)
