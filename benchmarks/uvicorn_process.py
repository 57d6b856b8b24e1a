"""What a request of uvicorn's on httptools costs in process: without sockets, kernel and client.

Each variant is a process of its own, forked from one parent, and they take turns. Its protocol is handed the bytes of a
request; an application that is nothing but two calls of ``send`` answers into a transport that does nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import uvicorn
from frameworks import twin
from gunicorn.config import Config
from shared import Report, arguments, percentile, spread
from uvicorn.server import ServerState

from promgun.metrics.instruments import Instruments
from promgun.store.process import ProcessStore
from promgun.workers._accounting import RequestAccounting
from promgun.workers._queue_time import TrustedPeers
from promgun.workers._uvicorn_cycles import follow_protocols

#: ``measuring`` is promgun with ``--no-server-shortcuts``.
VARIANTS = ("plain", "promgun", "measuring")
SIZE = 300
TARGET = 6.0
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: benchmark\r\nAccept: */*\r\n\r\n"


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer with a few bytes."""
    headers = [(b"content-length", b"14"), (b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, world!\n"})


class Nowhere(asyncio.Transport):
    """A connection that goes nowhere."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the addresses of both ends."""
        return {"peername": ("127.0.0.1", 50_000), "sockname": ("127.0.0.1", 8000)}.get(name, default)

    def write(self, data: Any) -> None:
        """Drop what is written."""

    def is_closing(self) -> bool:
        """Return that it is not."""
        return False


def prepared(variant: str) -> Callable[[], float]:
    """Return a function that serves a batch, and returns its microseconds of CPU a request."""
    config = uvicorn.Config(hello, http="httptools", ws="none", log_config=None)
    config.load()
    if variant != "plain":
        store = ProcessStore()
        accounting = RequestAccounting(store.board, Instruments(store, Config()), TrustedPeers(Config()))
        worker = SimpleNamespace(
            takes_shortcuts=variant == "promgun",
            accounting=accounting,
            is_replaced=False,
            observe_arrival=lambda *_: None,
        )
        follow_protocols(config, worker)
    loop, state = asyncio.new_event_loop(), ServerState()
    state.default_headers = [(b"date", b"Sat, 28 Nov 2026 00:00:00 GMT"), *config.encoded_headers]
    make: Any = config.http_protocol_class

    async def serve(protocol: Any) -> None:
        for _ in range(SIZE):
            protocol.data_received(_REQUEST)
            while state.tasks:  # noqa: ASYNC110 - as many rounds of the loop as it takes
                await asyncio.sleep(0)

    async def connect() -> Any:
        protocol = make(config=config, server_state=state, app_state={})
        protocol.connection_made(Nowhere())
        return protocol

    protocol = loop.run_until_complete(connect())

    def batch() -> float:
        begin = time.process_time_ns()
        loop.run_until_complete(serve(protocol))
        return (time.process_time_ns() - begin) / SIZE / 1_000

    batch()
    return batch


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__).parse_args()
    report = Report("uvicorn_process")
    twins = {variant: twin(lambda variant=variant: prepared(variant)) for variant in VARIANTS}  # type: ignore[misc] # bound here
    figures: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(40 if options.quick else 400):
        for variant in random.sample(VARIANTS, len(VARIANTS)):
            figures[variant].append(twins[variant]())
    rows: list[dict[str, Any]] = []
    for variant, mine in figures.items():
        around, added = spread(mine), percentile(mine, 0.05) - percentile(figures["plain"], 0.05)
        rows.append({"variant": variant, "CPU": around.median, "IQR": around.iqr, "least": min(mine), "added": added})
        if variant != "plain":
            rows[-1]["reached"] = report.check(f"{variant}: at most {TARGET} µs more", fine=added <= TARGET)
    report.table("A request of uvicorn in process (µs)", rows)
    report.save(options.json)


if __name__ == "__main__":
    main()
