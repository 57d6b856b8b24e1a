"""Litestar: handlers, routers, converters, a mounted ASGI application."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Router, asgi, get
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route


@get("/")
async def index() -> str:
    return "index"


@get("/users/{user:int}")
async def user(user: int) -> str:
    return f"{user}"


@get("/items/{item:str}")
async def item(item: str) -> str:
    return item


@get("/fails")
async def fails() -> str:
    raise RuntimeError("on purpose")


async def foreign(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - Litestar wants these names
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def view(_request: Any) -> PlainTextResponse:
    return PlainTextResponse("view")


inner = Starlette(routes=[Mount("/in", routes=[Route("/{name}/", view)])])


async def hidden(scope: Any, receive: Any, send: Any) -> None:
    await inner(scope, receive, send)


mount = asgi("/foreign", is_mount=True, copy_scope=False)(foreign)
shop = Router("/shop/{shop:str}", route_handlers=[item])
mounted = Router("/v1", route_handlers=[asgi("/hidden", is_mount=True, copy_scope=False)(hidden)])
app = Litestar([index, user, fails, shop, mount, mounted], openapi_config=None)

REQUESTS = {
    "GET /": (200, "/"),
    "GET /users/5": (200, "/users/{user}"),
    "GET /users/5/": (200, "/users/{user}"),
    "GET /users/x": (404, ""),
    "POST /users/5": (405, ""),
    "GET /shop/a/items/b": (200, "/shop/{shop}/items/{item}"),
    "GET /fails": (500, "/fails"),
    "GET /foreign/x": (404, "/foreign"),
    "GET /v1/hidden/in/x/": (200, "/v1/hidden/in/{name}/"),
    "GET /v1/hidden/none/": (404, ""),
    "GET /none": (404, ""),
}
