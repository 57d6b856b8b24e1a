"""Gunicorn's ASGI server with fewer rounds of its loop: clients and applications see the same as of Gunicorn's own."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import gunicorn
import pytest
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.config import Config

from promgun.workers._asgi_shortcuts import QuickProtocol, is_known

NEWEST = (27, 0, 1)
pytestmark = pytest.mark.skipif(gunicorn.version_info < NEWEST, reason="written for one version of Gunicorn's server")

GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE = b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OF_REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("OF_REQUEST", default="new")


class Worker:
    """What the protocol asks of its worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, grace: int) -> None:
        self.loop = loop
        self.cfg = Config()
        self.cfg.set("keepalive", 1)
        self.cfg.set("asgi_disconnect_grace_period", grace)
        self.nr = self.nr_conns = 0
        self.alive = True
        self.max_requests = sys.maxsize
        self.state: dict[str, Any] = {}
        self.errors = io.StringIO()
        self.log = logging.Logger("server")  # noqa: LOG001 - of this test alone
        self.log.addHandler(logging.StreamHandler(self.errors))
        self.log.access_log_enabled = False  # type: ignore[attr-defined] # Gunicorn's
        self.released = asyncio.Event()
        self.seen: list[str] = []
        self.tasks: set[Any] = set()

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        """Do what the path says."""
        what = scope["path"][1:]
        self.tasks.add(asyncio.current_task())
        self.seen.append(f"{what} {OF_REQUEST.get()} {len(self.tasks)}")
        OF_REQUEST.set("used")
        if what == "fail":
            raise RuntimeError(what)
        if what.startswith("read"):
            while (await receive())["more_body"]:
                if what == "read_late":
                    await asyncio.sleep(0.01)
        if what == "waits":
            await self.released.wait()
        if what == "slow":
            await asyncio.sleep(0.01)
        headers = [(b"content-length", b"%d" % len(what))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": what.encode()})
        if what == "background":
            await self.released.wait()
            self.seen.append("released")
        if what == "late":
            raise RuntimeError(what)


Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Worker], Awaitable[list[bytes]]]


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Return the status and the body of an answer, with what says that it is the last one."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    body = await reader.readexactly(int(fields[b"content-length"]))
    return b" ".join((head.split(b" ")[1], body, fields.get(b"connection", b"")))


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Wait until the server ends the connection."""
    return b"end" + await asyncio.wait_for(reader.read(), 10)


async def one_by_one(reader: Any, writer: Any, worker: Worker) -> list[bytes]:
    """Send three requests one after the other, then one with a body in two pieces, then the last one."""
    answers = []
    for path in (b"a", b"slow", b"b"):
        writer.write(GET % path)
        answers.append(await answer(reader))
        await asyncio.sleep(0.005)
    writer.write(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    await asyncio.sleep(0.01)
    writer.write(b"cd")
    answers.append(await answer(reader))
    writer.write(CLOSE % b"c")
    return [*answers, await answer(reader), await ended(reader), b"%d" % worker.nr]


async def pipelined(reader: Any, writer: Any, _: Worker) -> list[bytes]:
    """Send requests without waiting, one of them in two pieces."""
    await asyncio.sleep(0.005)
    writer.write(GET % b"a" + GET % b"slow" + GET % b"b" + (GET % b"c")[:9])
    answers = [await answer(reader) for _ in range(3)]
    writer.write((GET % b"c")[9:] + GET % b"d")
    answers += [await answer(reader), await answer(reader)]
    writer.write(GET % b"e")
    return [*answers, await answer(reader)]


async def beside_background(reader: Any, writer: Any, worker: Worker) -> list[bytes]:
    """Send requests while a background task runs; one of them had been sent before."""
    await asyncio.sleep(0.005)
    writer.write(GET % b"background" + GET % b"a")
    answers = [await answer(reader), await answer(reader)]
    writer.write(GET % b"background")
    answers.append(await answer(reader))
    await asyncio.sleep(0.01)
    writer.write(GET % b"b")
    answers.append(await answer(reader))
    worker.released.set()
    await asyncio.sleep(0.01)
    writer.write(GET % b"c")
    return [*answers, await answer(reader), await ended(reader)]


async def unread_body(reader: Any, writer: Any, _: Worker) -> list[bytes]:
    """Leave the body of a request out, which the application does not want: the connection is over."""
    await asyncio.sleep(0.005)
    writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
    return [await answer(reader), await ended(reader)]


async def failures(reader: Any, writer: Any, _: Worker) -> list[bytes]:
    """Ask for a failure after the answer, which ends the connection."""
    await asyncio.sleep(0.005)
    writer.write(GET % b"a")
    first = await answer(reader)
    writer.write(GET % b"late")
    return [first, await answer(reader), await ended(reader)]


async def failure(reader: Any, writer: Any, _: Worker) -> list[bytes]:
    """Ask for a failure."""
    await asyncio.sleep(0.005)
    writer.write(GET % b"fail")
    return [await answer(reader), await ended(reader)]


async def no_request(reader: Any, writer: Any, _: Worker) -> list[bytes]:
    """Send what is no request after one, then a bad chunk."""
    await asyncio.sleep(0.005)
    writer.write(GET % b"a")
    first = await answer(reader)
    writer.write(b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n")
    return [first, await answer(reader), await ended(reader)]


async def idle(reader: Any, writer: Any, _: Worker) -> list[bytes]:
    """Wait until the server ends an idle connection: not sooner than its setting says, after the last request."""
    await asyncio.sleep(0.005)
    clock = asyncio.get_running_loop().time
    answers = []
    for path in (b"a", b"b"):
        begin = clock()
        writer.write(GET % path)
        answers.append(await answer(reader))
        await asyncio.sleep(0.4)
    answers.append(await ended(reader))
    assert clock() - begin >= 1.0
    return answers


async def leaves(reader: Any, writer: Any, worker: Worker) -> list[bytes]:
    """Leave while the application runs: it is cancelled after the grace period."""
    await asyncio.sleep(0.005)
    writer.write(GET % b"background")
    first = await answer(reader)
    writer.close()
    await asyncio.sleep(1.3)
    worker.released.set()
    return [first]


async def many(reader: Any, writer: Any, worker: Worker) -> list[bytes]:
    """Send one request more than the worker is to serve."""
    await asyncio.sleep(0.005)
    worker.max_requests = 3
    answers = []
    for path in (b"a", b"background", b"b"):
        writer.write(GET % path)
        answers.append(await answer(reader))
        await asyncio.sleep(0.01)
    worker.released.set()
    return [*answers, await ended(reader), b"%d %d" % (worker.nr, worker.alive)]


async def exactly_as_many(reader: Any, writer: Any, worker: Worker) -> list[bytes]:
    """Send as many requests as the worker is to serve, one after the other."""
    worker.max_requests = 2
    answers = []
    for path in (b"a", b"b"):
        writer.write(GET % path)
        answers.append(await answer(reader))
    return [*answers, await ended(reader), b"%d %d" % (worker.nr, worker.alive)]


async def large_body(reader: Any, writer: Any, worker: Worker) -> list[bytes]:
    """Send so much that reading is paused, which the application does not want, then another request."""
    writer.write(b"POST /waits HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000))
    await writer.drain()
    while writer.transport.get_write_buffer_size():  # noqa: ASYNC110 - drain is content with less
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    worker.released.set()
    first = await answer(reader)
    writer.write(GET % b"b")
    return [first, await answer(reader)]


async def large_upload(reader: Any, writer: Any, _: Worker) -> list[bytes]:
    """Send so much that reading is paused, which the application reads, then another request."""
    writer.write(b"POST /read_late HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000))
    first = await answer(reader)
    writer.write(GET % b"b")
    return [first, await answer(reader)]


async def with_hook(reader: Any, writer: Any, worker: Worker) -> list[bytes]:
    """Send a request behind one with a background task: the hook of the first one is called before the second."""
    writer.write(GET % b"background" + GET % b"a")
    first = await answer(reader)
    for _ in range(20):
        await asyncio.sleep(0)
    worker.released.set()
    return [first, await answer(reader)]


CLIENTS: tuple[Client, ...] = (
    one_by_one, pipelined, beside_background, unread_body, failures, failure, no_request, idle, leaves, many,
    exactly_as_many, large_body, large_upload, with_hook,
)  # fmt: skip


def transcript(protocol: type, client: Client) -> Any:
    """Return what a client got of a server, what the application saw, what was logged, and what is left."""

    async def serve() -> Any:
        loop = asyncio.get_running_loop()
        worker = Worker(loop, grace=int(client is leaves))
        if client is with_hook:
            worker.cfg.set("post_request", lambda _worker, req, _environ, _resp: worker.seen.append(f"hook {req.path}"))
        server = await loop.create_server(lambda: protocol(worker), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        answers = await client(reader, writer, worker)
        writer.close()
        deadline = loop.time() + 10
        while (worker.nr_conns or len(asyncio.all_tasks()) > 1) and loop.time() < deadline:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
        server.close()
        told = [line for line in worker.errors.getvalue().splitlines() if not line.startswith((" ", "Traceback"))]
        timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined] # asyncio's own
        return answers, worker.seen, told, len(timers), worker.nr_conns, len(asyncio.all_tasks())

    return asyncio.run(serve())


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_client_and_an_application_see_what_they_see_of_gunicorn(client: Client) -> None:
    """Answers, their order, ends of connections, contexts, tasks, messages and what is left are the same."""
    plain = transcript(ASGIProtocol, client)
    assert transcript(QuickProtocol, client) == plain
    assert plain[-2:] == (0, 1)


def test_usual_requests_do_not_pass_the_task_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortcut is taken: what it replaces is called for none of them."""
    passed = []
    served = ASGIProtocol._serve_http_request

    def serve(self: Any, *args: Any) -> Any:
        passed.append(args)
        return served(self, *args)

    monkeypatch.setattr(ASGIProtocol, "_serve_http_request", serve)

    async def client(reader: Any, writer: Any, _: Worker) -> list[bytes]:
        await asyncio.sleep(0.005)
        answers = []
        for _number in range(3):
            writer.write(GET % b"a")
            answers.append(await answer(reader))
            await asyncio.sleep(0.005)
        return answers

    transcript(ASGIProtocol, client)
    assert len(passed) == 3
    transcript(QuickProtocol, client)
    assert len(passed) == 3


def test_it_knows_the_server() -> None:
    """Fails with the first version of Gunicorn whose server is another one."""
    assert is_known(ASGIProtocol)


def test_another_server_serves_in_its_own_way() -> None:
    """One of its methods is another one."""

    class Other(ASGIProtocol):  # type: ignore[misc] # gunicorn is untyped
        def _keepalive_timeout(self) -> None:
            self._close_transport()

    assert not is_known(Other)
    assert not is_known(type("Old", (), {}))
