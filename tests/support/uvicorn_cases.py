"""What clients ask of uvicorn, and applications answer: usual and odd."""

# ruff: noqa: ARG001 - applications have three parameters, by these names

from __future__ import annotations

import asyncio
import functools
import http
from contextvars import ContextVar
from types import coroutine
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

GET = b"GET /path?q=1 HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"hi"}
END = "end"
_variable: ContextVar[int] = ContextVar("variable", default=0)


class Until(bytes):
    """A client reads until it has received this."""


class Books:
    """What applications, logs and counters saw."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.logs: list[str] = []
        #: what a worker counted
        self.counted: list[Any] = []


def sending(*messages: Any, waits: bool = False) -> Any:
    """Return an application that sends messages, waiting between them or not."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message() if callable(message) else message)
            if waits:
                await asyncio.sleep(0.002)

    return application


def head(*headers: Any, status: Any = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def chunk(body: Any, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the request's body, once it is there."""
    body, more = b"", True
    while more:
        message = await receive()
        seen = books_of(scope).seen
        # In how many pieces a body comes is up to the kernel.
        if seen[-1:] != [message["type"]]:
            seen.append(message["type"])
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    await send(head((b"Content-Length", b"%d" % len(body))))
    await send({"type": "http.response.body", "body": body})


def books_of(scope: Any) -> Books:
    books: Books = scope["state"]["books"]
    return books


def failing(*messages: Any) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        raise RuntimeError("broken")

    return application


def returning(value: Any, *messages: Any) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> Any:
        for message in messages:
            await send(message)
        return value

    return application


async def catching(scope: Any, receive: Any, send: Any) -> None:
    """Send what is refused, then go on."""
    for message in (
        BODY,
        head((b"x", b"a\nb"), (b"content-length", b"2")),
        BODY,
        START,
        BODY,
        chunk(b"x"),
        BODY,
        START,
    ):
        try:
            await send(message)
        except Exception as error:  # noqa: BLE001, PERF203 - any, of each
            books_of(scope).seen.append(repr(error))


async def background(scope: Any, receive: Any, send: Any) -> None:
    """Answer, then go on for a while."""
    await send(START)
    await send(BODY)
    books_of(scope).seen.append((await receive())["type"])
    await asyncio.sleep(0.02)


async def waiting_for_the_end(scope: Any, receive: Any, send: Any) -> None:
    """Wait until the client leaves, then answer into nothing."""
    books = books_of(scope)
    books.seen.append((await receive())["type"])
    books.seen.append((await receive())["type"])
    await send(START)
    await send(BODY)
    books.seen.append("done")


async def cancelling(scope: Any, receive: Any, send: Any) -> None:
    """Use what is thrown into the coroutine."""
    seen = books_of(scope).seen
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.01)
    except asyncio.TimeoutError:
        seen.append("timeout")
    task: Any = asyncio.current_task()
    asyncio.get_running_loop().call_later(0.01, task.cancel)
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        seen.append("cancelled")
    seen.extend((_variable.get(), type(task.get_coro()).__name__, task.get_coro().__qualname__))
    _variable.set(1)
    await send(START)
    await asyncio.sleep(0)
    await send(BODY)
    task.cancel()
    await asyncio.sleep(10)


async def children(scope: Any, receive: Any, send: Any) -> None:
    """Send from other tasks."""
    await asyncio.create_task(send(head()))
    await asyncio.gather(send(chunk(b"a")), send(chunk(b"b")))
    never = send(chunk(b""))
    never.close()
    await send(chunk(b"c"))
    await asyncio.create_task(send(chunk(b"", more=False)))


async def scopes(scope: Any, receive: Any, send: Any) -> None:
    """Note the scope."""
    books = books_of(scope)
    described = {key: (type(value).__name__, repr(value)) for key, value in sorted(scope.items())}
    for key in ("client", "server", "state", "promgun.report_route"):
        described.pop(key, None)
    books.seen.append(described)
    books.seen.append([type(scope["client"]).__name__, type(scope["state"]).__name__, sorted(scope["state"])])
    scope["state"]["own"] = 1
    scope["headers"].append((b"x", b"y"))
    await send(START)
    await send(BODY)


def future_of(scope: Any, receive: Any, send: Any) -> Any:
    return asyncio.ensure_future(sending(START, BODY)(scope, receive, send))


@coroutine
def generator_of(scope: Any, receive: Any, send: Any) -> Any:
    yield from sending(START, BODY)(scope, receive, send)


class Awaitable:
    """An application that returns an awaitable of its own."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self._given = scope, receive, send

    def __await__(self) -> Any:
        return sending(START, BODY)(*self._given).__await__()


def stopping(scope: Any, receive: Any, send: Any) -> Any:
    raise StopIteration(5)


def starlette() -> Any:
    async def pieces() -> Any:
        yield "one"
        await asyncio.sleep(0.002)
        yield "two"

    async def stream(_: Any) -> Any:
        return StreamingResponse(pieces(), headers={"X-Own": "a"})

    async def answer(request: Any) -> Any:
        return JSONResponse({"body": (await request.body()).decode()}, background=BackgroundTask(asyncio.sleep, 0.001))

    class Middle(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            response = await call_next(request)
            response.set_cookie("a", "b")
            return response

    routes = [Route("/stream", stream), Route("/", answer, methods=["GET", "POST"])]
    return Starlette(routes=routes, middleware=[Middleware(Middle)])


def asking(first: bytes) -> bytes:
    """Return a request for a path."""
    return b"GET " + first + b" HTTP/1.1\r\nHost: x\r\n\r\n"


LARGE = b"x" * 3_000_000
HEADS: dict[str, list[Any]] = {
    "plain": [head((b"content-length", b"2"), (b"content-type", b"text/plain")), BODY],
    "titles": [head((b"Content-Length", b"2"), (b"Content-Type", b"text/plain"), (b"X-Own", b"a\tb")), BODY],
    "lists": [head([b"content-length", b"2"], [b"content-type", b"text/plain"]), BODY],
    "chunked": [head(), chunk(b"a"), chunk(b""), chunk(b"b"), chunk(b"", more=False)],
    "chunked at once": [head(), BODY],
    "chunked and empty": [head(), chunk(b"", more=False)],
    "chunked by header": [head((b"transfer-encoding", b"chunked")), chunk(b"a"), BODY],
    "two lengths": [head((b"content-length", b"2"), (b"content-length", b"3")), BODY],
    "length and chunked": [head((b"content-length", b"2"), (b"transfer-encoding", b"chunked")), BODY],
    "zeros": [head((b"content-length", b"002")), BODY],
    "zero": [head((b"content-length", b"0")), chunk(b"", more=False)],
    "spaces": [head((b"content-length", b" 2 ")), BODY],
    "no number": [head((b"content-length", b"two")), BODY],
    "negative": [head((b"content-length", b"-2")), BODY],
    "huge": [head((b"content-length", b"9" * 5000)), BODY],
    "empty length": [head((b"content-length", b"")), BODY],
    "close": [head((b"content-length", b"2"), (b"connection", b"Close")), BODY],
    "keep-alive": [head((b"content-length", b"2"), (b"connection", b"keep-alive")), BODY],
    "bad name": [head((b"a b", b"2")), BODY],
    "bad value": [head((b"a", b"2\r\nb: c")), BODY],
    "bad value of a usual name": [head((b"vary", b"\x00")), BODY],
    "text": [head(("content-length", "2")), BODY],
    "text in a value": [head((b"content-length", "2")), BODY],
    "bytearray": [head((bytearray(b"x-own"), bytearray(b"2"))), BODY],
    "triple": [head((b"a", b"b", b"c")), BODY],
    "single": [head((b"a",)), BODY],
    "no headers": [{"type": "http.response.start", "status": 200}, BODY],
    "tuple": [{**START, "headers": ((b"content-length", b"2"),)}, BODY],
    "generator": [lambda: {**START, "headers": iter([(b"content-length", b"2")])}, BODY],
    "none": [{**START, "headers": None}, BODY],
    "204": [head(status=204), chunk(b"", more=False)],
    "204 with a body": [head(status=204), BODY],
    "304": [head((b"etag", b'"a"'), status=304), chunk(b"", more=False)],
    "enum": [head((b"content-length", b"2"), status=http.HTTPStatus.NOT_FOUND), BODY],
    "999": [head((b"content-length", b"2"), status=999), BODY],
    "299": [head((b"content-length", b"2"), status=299), BODY],
    "text status": [head((b"content-length", b"2"), status="200"), BODY],
    "list status": [head((b"content-length", b"2"), status=[200]), BODY],
    "no status": [{"type": "http.response.start", "headers": []}, BODY],
    "too long": [START, chunk(b"h"), chunk(b"iii"), BODY],
    "too long at once": [START, chunk(b"hiii", more=False)],
    "too short": [START, chunk(b"h"), chunk(b"", more=False)],
    "too short at once": [START, chunk(b"h", more=False)],
    "in pieces": [START, chunk(b"h"), chunk(b"i"), chunk(b"", more=False)],
    "no body": [START],
    "no start": [BODY],
    "two starts": [START, START, BODY],
    "two starts later": [START, chunk(b"h"), START],
    "too many": [START, BODY, BODY],
    "trailers": [START, {"type": "http.response.trailers", "headers": []}],
    "another type": [{"type": "http.response.push"}],
    "no type": [{}],
    "bytearray body": [START, {**BODY, "body": bytearray(b"hi")}],
    "memoryview body": [START, {**BODY, "body": memoryview(b"hi")}],
    "text body": [START, {**BODY, "body": "hi"}],
    "none as body": [head(), {**BODY, "body": None}],
    "body left out": [head((b"content-length", b"0")), {"type": "http.response.body"}],
    "large": [head((b"content-length", b"%d" % len(LARGE))), chunk(LARGE, more=False)],
    "large and chunked": [head(), chunk(LARGE), chunk(LARGE, more=False)],
    "64 KiB": [head((b"content-length", b"65536")), chunk(b"y" * 65536, more=False)],
    "64 KiB and one": [head((b"content-length", b"65537")), chunk(b"y" * 65537, more=False)],
}
#: An application, what a client does, and options.
CASES: dict[str, tuple[Any, list[Any], dict[str, Any]]] = {
    "kept alive": (scopes, [GET, Until(b"hi"), GET, Until(b"hi"), CLOSE, END], {}),
    "pipelined": (scopes, [GET * 3 + CLOSE, END], {}),
    "pipelined and slow": (sending(START, BODY, waits=True), [GET * 3 + CLOSE, END], {}),
    "pipelined background": (background, [GET * 3 + CLOSE, END], {}),
    "in pieces": (scopes, [GET[:7], 0.01, GET[7:20], 0.01, GET[20:], Until(b"hi"), CLOSE, END], {}),
    "idle": (scopes, [GET, END], {"timeout_keep_alive": 0.05}),
    "idle again": (scopes, [GET, 0.06, GET, 0.06, GET, END], {"timeout_keep_alive": 0.1}),
    "longer than idle": (sending(START, BODY, waits=True), [GET, END], {"timeout_keep_alive": 0.001}),
    "1.0": (scopes, [b"GET / HTTP/1.0\r\n\r\n", END], {}),
    "1.0 kept": (scopes, [b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", END], {}),
    "1.0 chunked": (sending(head(), BODY), [b"GET / HTTP/1.0\r\n\r\n", END], {}),
    "closing": (scopes, [CLOSE, END], {}),
    "root": (scopes, [asking(b"/a%20b?c=%20"), Until(b"hi"), CLOSE, END], {"root_path": "/root"}),
    "HEAD": (sending(START, BODY), [b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", 0.02, CLOSE, END], {}),
    "HEAD chunked": (sending(head(), chunk(b"a"), BODY), [b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", 0.02, CLOSE, END], {}),
    "upload": (
        echo,
        [POST + b"0123456789", Until(b"789"), POST + b"01234", 0.01, b"56789", Until(b"789"), CLOSE, END],
        {},
    ),
    "chunked upload": (
        echo,
        [
            b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            0.01,
            b"1\r\nd\r\n0\r\n\r\n",
            Until(b"abcd"),
            CLOSE,
            END,
        ],
        {},
    ),
    "large upload": (echo, [POST.replace(b"10", b"%d" % len(LARGE)) + LARGE, Until(LARGE), CLOSE, END], {}),
    "unread upload": (sending(START, BODY), [POST + b"0123456789" + CLOSE, END], {}),
    "unread and unsent": (sending(START, BODY), [POST + b"0", Until(b"hi"), b"123456789" + CLOSE, END], {}),
    "100": (
        echo,
        [POST[:-2] + b"Expect: 100-continue\r\n\r\n", Until(b"Continue\r\n\r\n"), b"0123456789", 0.02, CLOSE, END],
        {},
    ),
    "100 unread": (sending(START, BODY), [POST[:-2] + b"Expect: 100-Continue\r\n\r\n", Until(b"hi")], {}),
    "broken chunk": (echo, [b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", END], {}),
    "no request": (echo, [b"nonsense\r\n\r\n", END], {}),
    "no request behind one": (sending(START, BODY), [GET + b"nonsense\r\n\r\n", END], {}),
    "upgrade": (sending(START, BODY), [GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 0.02], {}),
    "another upgrade": (
        sending(START, BODY),
        [GET[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", Until(b"hi")],
        {},
    ),
    "left in an upload": (echo, [POST + b"0", 0.01], {}),
    "left before the answer": (waiting_for_the_end, [GET, 0.01], {}),
    "left in a stream": (sending(head(), *[chunk(b"a" * 100_000)] * 50, waits=True), [GET, Until(b"aaaa")], {}),
    "slow reader": (sending(head(), *[chunk(LARGE)] * 3, BODY), [GET, 0.1, Until(b"0\r\n\r\n"), CLOSE, 0.1], {}),
    "fails": (failing(), [GET, END], {}),
    "fails after the head": (failing(START), [GET, END], {}),
    "fails within the body": (failing(START, chunk(b"h")), [GET, END], {}),
    "fails after the answer": (failing(START, BODY), [GET, Until(b"hi"), 0.02], {}),
    "fails in a chunked answer": (failing(head(), chunk(b"a")), [GET, END], {}),
    "returns": (returning(5, START, BODY), [GET, END], {}),
    "returns at once": (returning(5), [GET, END], {}),
    "answers nothing": (returning(None), [GET, END], {}),
    "stops": (stopping, [GET, END], {}),
    "catches": (catching, [GET, END], {}),
    "cancels": (cancelling, [GET, Until(b"hi"), 0.05], {}),
    "cancels again": (cancelling, [GET, Until(b"hi"), GET, 0.05], {}),
    "other tasks": (children, [GET + CLOSE, END], {}),
    "a future": (future_of, [GET + CLOSE, END], {}),
    "a generator": (generator_of, [GET + CLOSE, END], {}),
    "an awaitable": (Awaitable, [GET + CLOSE, END], {}),
    "partial": (functools.partial(sending(START, BODY)), [GET + CLOSE, END], {}),
    "nothing": (lambda *_: None, [GET, END], {}),
    "forwarded": (
        scopes,
        [GET[:-2] + b"X-Forwarded-Proto: https\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", Until(b"hi")],
        {},
    ),
    "not forwarded": (scopes, [GET[:-2] + b"X-Forwarded-Proto: https\r\n\r\n", Until(b"hi")], {"proxy_headers": False}),
    "own headers": (scopes, [GET, Until(b"hi")], {"headers": [("X-Own", "a"), ("connection", "close")]}),
    "too many": (scopes, [GET, END], {"limit_concurrency": 1}),
    "starlette": (
        starlette(),
        [
            GET.replace(b"/path", b"/stream"),
            Until(b"0\r\n\r\n"),
            GET.replace(b"/path", b"/"),
            Until(b'""}'),
            POST + b"0123456789",
            Until(b'"}'),
            asking(b"/none"),
            Until(b"Found"),
            CLOSE,
            END,
        ],
        {},
    ),
    **{f"head: {name}": (sending(*sent), [GET + CLOSE, END], {}) for name, sent in HEADS.items()},
    **{f"head and pause: {name}": (sending(*sent, waits=True), [GET + CLOSE, END], {}) for name, sent in HEADS.items()},
    **{f"head, 1.0: {name}": (sending(*sent), [b"GET / HTTP/1.0\r\n\r\n", END], {}) for name, sent in HEADS.items()},
}
