"""An ASGI application for tests: a Starlette one, and below ``/raw`` one without a framework."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def answer(request: Request) -> Response:
    """Answer with the status of the path and a body as long as the request's."""
    body = await request.body()
    return Response(b"z" * len(body), status_code=int(request.path_params["status"]))


async def with_task(_request: Request) -> Response:
    """Answer, then go on for two seconds."""
    return PlainTextResponse("ok", background=BackgroundTask(asyncio.sleep, 2))


async def fails(_request: Request) -> Response:
    """Raise before the answer."""
    raise RuntimeError


async def handles(_request: Request) -> Response:
    """Raise what the framework answers."""
    raise HTTPException(418)


async def breaks(_request: Request) -> Response:
    """Raise in the middle of the answer."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise ValueError

    return StreamingResponse(pieces())


async def events(_request: Request) -> Response:
    """Send events for ten seconds."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(200):
            yield b"data: %d\n\n" % number
            await asyncio.sleep(0.05)

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def wait(_request: Request) -> Response:
    """Answer after a minute."""
    await asyncio.sleep(60)
    return PlainTextResponse("late")


async def nap(_request: Request) -> Response:
    """Answer after four seconds."""
    await asyncio.sleep(4)
    return PlainTextResponse("ok")


async def block(_request: Request) -> Response:
    """Keep the loop from its other tasks for two seconds and a half."""
    time.sleep(2.5)  # noqa: ASYNC251 - that is what is tried
    return PlainTextResponse("ok")


async def gate(request: Request) -> Response:
    """Keep the loop from its other tasks until there is a file of that name in the working directory."""
    deadline = time.monotonic() + 20
    while request.path_params["name"] not in os.listdir() and time.monotonic() < deadline:
        time.sleep(0.005)  # noqa: ASYNC251 - that is what is tried
    return PlainTextResponse("ok")


async def yields(_request: Request) -> Response:
    """Answer in the next round of the loop."""
    await asyncio.sleep(0)
    return PlainTextResponse("ok")


async def pid(_request: Request) -> Response:
    """Answer with the worker's pid."""
    return PlainTextResponse(str(os.getpid()))


async def echo(websocket: WebSocket) -> None:
    """Accept, and send each message back; "bye" closes with 4000, "boom" raises."""
    await websocket.accept()
    try:
        async for text in websocket.iter_text():
            if text == "bye":
                await websocket.close(4000)
                return
            if text == "boom":
                raise RuntimeError
            await websocket.send_text(text)
    except WebSocketDisconnect:
        return


async def refuse(websocket: WebSocket) -> None:
    """Refuse a handshake."""
    await websocket.close()


async def raw(scope: Any, receive: Any, send: Any) -> None:
    """Answer as the path says, without a framework."""
    path = scope["path"]

    async def start(*headers: tuple[bytes, bytes]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})

    async def body(data: bytes = b"", *, more: bool = False) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    if path.endswith("/left"):
        while (await receive())["type"] != "http.disconnect":
            pass
    elif path.endswith("/silent"):
        return
    elif path.endswith("/bad-header"):
        await start((b"x-split", b"a\r\nb: c"))
    elif path.endswith("/started"):
        await start()
        raise ValueError
    elif path.endswith(("/long", "/brief")):
        await start((b"content-length", b"2" if path.endswith("/long") else b"9"))
        await body(b"xyz")
        return
    await start()
    await body(b"o", more=True)
    if path.endswith("/paused"):
        await asyncio.sleep(0.3)
    await body(b"k")


async def again(_scope: Any, _receive: Any, send: Any) -> None:
    """Start an answer twice."""
    for status in (200, 201):
        await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def gives_up(_scope: Any, receive: Any, send: Any) -> None:
    """Read the body; answer 500 if it is not complete, as Litestar does."""
    while (message := await receive())["type"] != "http.disconnect" and message["more_body"]:
        pass
    status = 500 if message["type"] == "http.disconnect" else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def mebibytes(_scope: Any, _receive: Any, send: Any) -> None:
    """Send 64 of them, then how many were sent when the loop came to something else."""
    sent = seen = 0

    def look() -> None:
        nonlocal seen
        seen = sent

    await send({"type": "http.response.start", "status": 200, "headers": []})
    asyncio.get_running_loop().call_soon(look)
    for sent in range(64):  # noqa: B007 - what look() sees
        await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})
    await send({"type": "http.response.body", "body": b" %d" % seen})


app = Starlette(
    routes=[
        Route("/status/{status}", answer, methods=["GET", "POST", "PUT", "HEAD"]),
        Route("/task", with_task),
        Route("/fails", fails),
        Route("/handles", handles),
        Route("/breaks", breaks),
        Route("/events/{topic}", events),
        Route("/wait/{n}", wait),
        Route("/nap", nap),
        Route("/block", block),
        Route("/gate/{name}", gate),
        Route("/yields", yields),
        Route("/pid", pid),
        Mount("/again", app=again),
        Mount("/gives-up", app=gives_up),
        Mount("/mebibytes", app=mebibytes),
        Mount("/raw", app=raw),
        WebSocketRoute("/echo/{room}", echo),
        WebSocketRoute("/refuse", refuse),
        WebSocketRoute("/boom", fails),
    ]
)
