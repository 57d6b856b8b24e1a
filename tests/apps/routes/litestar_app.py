"""Litestar: handlers, routers, converters, a mounted ASGI application."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Router, asgi, get


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


mount = asgi("/foreign", is_mount=True, copy_scope=False)(foreign)
app = Litestar([index, user, fails, Router("/shop/{shop:str}", route_handlers=[item]), mount], openapi_config=None)

REQUESTS = {
    "GET /": (200, "/"),
    "GET /users/5": (200, "/users/{user}"),
    "GET /users/5/": (200, "/users/{user}"),
    "GET /users/x": (404, ""),
    "POST /users/5": (405, ""),
    "GET /shop/a/items/b": (200, "/shop/{shop}/items/{item}"),
    "GET /fails": (500, "/fails"),
    "GET /foreign/x": (404, "/foreign"),
    "GET /none": (404, ""),
}
