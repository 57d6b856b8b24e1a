"""Applications that are not WSGI."""

from __future__ import annotations

import os
from typing import Any

from aiohttp import web
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def starlette_pid(_request: Any) -> PlainTextResponse:
    """Answer with the worker's pid."""
    return PlainTextResponse(str(os.getpid()))


async def aiohttp_pid(_request: web.Request) -> web.Response:
    """Answer with the worker's pid."""
    return web.Response(text=str(os.getpid()))


starlette = Starlette(routes=[Route("/", starlette_pid)])
aiohttp = web.Application()
aiohttp.router.add_get("/", aiohttp_pid)


async def unwilling(scope: Any, receive: Any, send: Any) -> None:
    """Refuse to start (ASGI's lifespan)."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
