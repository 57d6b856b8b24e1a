"""uvicorn's server with less to do for each request: clients and the server's own books see the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from gunicorn.config import Config
from uvicorn.protocols.http import h11_impl, httptools_impl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from promgun.metrics.instruments import Instruments
from promgun.store.process import ProcessStore
from promgun.workers._accounting import RequestAccounting
from promgun.workers._queue_time import TrustedPeers
from promgun.workers._uvicorn_cycles import follow_protocols
from promgun.workers._uvicorn_shortcuts import QuickProtocol, forget_ended, is_known

pytestmark = pytest.mark.skipif(
    tuple(map(int, uvicorn.__version__.split(".")[:2])) < (0, 54), reason="written for one version of uvicorn's server"
)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


async def in_some_round(holds: Callable[[], bool]) -> None:
    """Let the loop go on until that holds."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it never came to that")


def measured(*, takes_shortcuts: bool) -> uvicorn.Config:
    """Return the configuration of a worker."""
    store = ProcessStore()
    accounting = RequestAccounting(store.board, Instruments(store, Config()), TrustedPeers(Config()))
    config = uvicorn.Config(hello, http="httptools", ws="none", log_config=None, timeout_keep_alive=1)
    config.load()
    worker = SimpleNamespace(
        takes_shortcuts=takes_shortcuts, accounting=accounting, is_replaced=False, observe_arrival=lambda *_: None
    )
    follow_protocols(config, worker)
    return config


def test_it_knows_the_server() -> None:
    """Fails with the first version of uvicorn whose server is another one."""
    assert is_known(HttpToolsProtocol, httptools_impl)
    assert issubclass(measured(takes_shortcuts=True).http_protocol_class, QuickProtocol)
    assert not issubclass(measured(takes_shortcuts=False).http_protocol_class, QuickProtocol)


def test_another_server_serves_in_its_own_way() -> None:
    """One of another parser, one with a method of its own."""

    class Own(HttpToolsProtocol):
        def on_response_complete(self) -> None:
            self.transport.close()

    assert not is_known(H11Protocol, h11_impl)
    assert not is_known(Own, httptools_impl)


@pytest.mark.parametrize("takes_shortcuts", [False, True])
def test_an_idle_connection_is_ended_and_a_busy_one_is_not(*, takes_shortcuts: bool) -> None:
    """A second after its last request, however many there were; pipelined ones are answered in turn."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        config, state = measured(takes_shortcuts=takes_shortcuts), ServerState()
        protocol: Any = config.http_protocol_class
        server = await loop.create_server(
            lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(GET * 3)
        for _ in range(3):
            await reader.readuntil(b"hi")
        for _ in range(3):
            await asyncio.sleep(0.4)
            begin = loop.time()
            writer.write(GET)
            await asyncio.wait_for(reader.readuntil(b"hi"), 10)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        assert loop.time() - begin >= 1.0
        writer.close()
        await writer.wait_closed()
        assert not state.tasks
        assert state.total_requests == 6
        server.close()
        await server.wait_closed()

    asyncio.run(serve())


@pytest.mark.parametrize("takes_shortcuts", [False, True])
def test_a_task_is_waited_for_until_it_ends(*, takes_shortcuts: bool) -> None:
    """Also one that fails, or goes on after its answer: a server that stops waits for the set of them."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        config, state, released = measured(takes_shortcuts=takes_shortcuts), ServerState(), asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/fail":
                raise RuntimeError
            await hello(scope, receive, send)
            await released.wait()

        config.loaded_app = application
        protocol: Any = config.http_protocol_class
        server = await loop.create_server(
            lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(GET)
        await reader.readuntil(b"hi")
        assert len(state.tasks) == 1
        writer.write(GET.replace(b"/", b"/fail", 1))
        await reader.readuntil(b"Error")
        await in_some_round(lambda: len(state.tasks) == 1)
        released.set()
        await in_some_round(lambda: not state.tasks)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    asyncio.run(serve())


def test_a_task_that_was_cancelled_before_it_began_is_not_waited_for() -> None:
    """It cannot leave the set of running tasks by itself."""

    async def run() -> None:
        ended = asyncio.ensure_future(asyncio.sleep(0))
        ended.cancel()
        await asyncio.sleep(0)
        running = asyncio.ensure_future(asyncio.sleep(10))
        tasks = {ended, running}
        forget_ended(tasks)
        assert tasks == {running}
        running.cancel()

    asyncio.run(run())
