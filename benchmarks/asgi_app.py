"""The ASGI application that is measured: a Starlette one with one route."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def hello(_: Request) -> PlainTextResponse:
    """Answer with a few bytes."""
    return PlainTextResponse("Hello, world!\n")


app = Starlette(routes=[Route("/", hello)])
