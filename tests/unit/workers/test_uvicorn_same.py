"""uvicorn on httptools as it is, measured, and with shortcuts: clients, applications and logs get the same.

Each case is an application, what a client does, and options of uvicorn's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from gunicorn.config import Config
from uvicorn.protocols.http import httptools_impl
from uvicorn.server import ServerState

from promgun.metrics.instruments import Instruments
from promgun.store.process import ProcessStore
from promgun.workers._accounting import RequestAccounting
from promgun.workers._asgi_lifecycle import HideOwnFrames
from promgun.workers._queue_time import TrustedPeers
from promgun.workers._uvicorn_cycles import follow_protocols
from promgun.workers._uvicorn_shortcuts import QuickProtocol, is_known
from tests.support.uvicorn_cases import CASES, END, Books, Until, scopes

UVICORN, MEASURED, QUICK = "uvicorn", "measured", "quick"
OWN_CYCLE = httptools_impl.RequestResponseCycle.__mro__[-2]
#: Of another version the shortcuts are not taken.
KNOWN = is_known(httptools_impl.HttpToolsProtocol, httptools_impl)


class Lines(logging.Handler):
    """Keeps what is logged, with tracebacks."""

    def __init__(self, books: Books) -> None:
        super().__init__()
        self._books = books
        self._format = logging.Formatter("%(name)s %(levelname)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        self._books.logs.append(self._format.format(record))


def configured(kind: str, application: Any, books: Books, monkeypatch: Any, options: Any) -> uvicorn.Config:
    """Return uvicorn's configuration: its own, that of a worker with shortcuts, or of one without."""
    monkeypatch.setattr(httptools_impl, "RequestResponseCycle", OWN_CYCLE)
    config = uvicorn.Config(application, http="httptools", ws="none", log_config=None, **options)
    config.load()
    if kind == UVICORN:
        return config
    store = ProcessStore()
    accounting = RequestAccounting(store.board, Instruments(store, Config()), TrustedPeers(Config()))
    accounting.record = lambda *of: books.counted.append((*of[:3], *of[4:]))
    accounting.record_stream = lambda *of: books.counted.append((*of[:3], *of[4:6]))
    accounting.inc = lambda *of: books.counted.append(of)
    worker = SimpleNamespace(
        takes_shortcuts=kind == QUICK, accounting=accounting, is_replaced=False, observe_arrival=lambda *_: None
    )
    follow_protocols(config, worker)
    assert issubclass(config.http_protocol_class, QuickProtocol) == (KNOWN and kind == QUICK)
    return config


def run(kind: str, application: Any, steps: Iterable[Any], options: dict[str, Any], monkeypatch: Any) -> Any:
    """Serve one client; return what it received, and what the application, the logs and the server's books have."""
    books = Books()
    config = configured(kind, application, books, monkeypatch, options)
    lines = Lines(books)
    lines.addFilter(HideOwnFrames())
    for name in ("uvicorn.error", "uvicorn.access", "asyncio"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", [lines])
        monkeypatch.setattr(logger, "propagate", False)
        monkeypatch.setattr(logger, "level", logging.INFO)
    received, state = asyncio.run(_serve(config, steps, books))
    own_frames = [line for line in books.logs if "promgun" in line]
    assert not own_frames
    # The port of the client differs.
    logs = sorted(line.partition(' - "')[2] or line for line in books.logs)
    seen = received, books.seen, logs, state.total_requests, len(state.tasks), len(state.connections)
    return seen, books.counted


async def _serve(config: uvicorn.Config, steps: Iterable[Any], books: Books) -> tuple[bytes, ServerState]:
    loop, state, received = asyncio.get_running_loop(), ServerState(), b""
    state.default_headers = [(b"date", b"today"), *config.encoded_headers]
    protocol: Any = config.http_protocol_class
    server = await loop.create_server(
        lambda: protocol(config=config, server_state=state, app_state={"books": books}), "127.0.0.1", 0
    )
    reader: Any
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1 << 24)
    for step in steps:
        if step == END:
            received += await asyncio.wait_for(reader.read(), 20)
        elif isinstance(step, Until):
            received += await asyncio.wait_for(reader.readuntil(step), 20)
        elif isinstance(step, bytes):
            writer.write(step)
        else:
            await asyncio.sleep(step)
    # What came unasked for
    reader._transport.pause_reading()
    received += bytes(reader._buffer)
    writer.close()
    for _ in range(400):
        if not state.tasks and not state.connections:
            break
        await asyncio.sleep(0.005)
    for task in state.tasks:
        task.cancel()
    server.close()
    await server.wait_closed()
    return received, state


@pytest.mark.parametrize("name", CASES)
def test_all_is_as_with_uvicorn_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    application, steps, options = CASES[name]
    expected = run(UVICORN, application, steps, options, monkeypatch)
    measured = run(MEASURED, application, steps, options, monkeypatch)
    assert measured[0] == expected[0]
    assert run(QUICK, application, steps, options, monkeypatch) == measured


class Transport(asyncio.Transport):
    """A connection to nobody."""

    written = b""

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.written += b"closed"


@pytest.mark.parametrize(
    "target",
    [b"%c", b"/%c", b"/a%cb", b"/a?%c", b"/a?b%cc", b"//%c/", b"/a#%c", b"/?a#%c?", b"http://x%c/", b"http://x/%c"],
)
def test_urls_are_read_as_by_uvicorn(target: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any byte in each place."""

    async def read(kind: str, url: bytes) -> Any:
        config = configured(kind, scopes, Books(), monkeypatch, {})
        protocol: Any = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})  # type: ignore[call-arg] # one of HTTP
        transport = Transport()
        protocol.connection_made(transport)
        protocol.data_received(b"GET " + url + b" HTTP/1.1\r\n\r\n")
        for task in protocol.tasks:
            task.cancel()
        return transport.written, {key: value for key, value in (protocol.scope or {}).items() if key != "state"}

    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "level", logging.CRITICAL)
    for byte in range(256):
        url = target % byte
        assert asyncio.run(read(QUICK, url)) == asyncio.run(read(UVICORN, url)), url
