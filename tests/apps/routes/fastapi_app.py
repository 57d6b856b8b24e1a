"""FastAPI: routers in routers, one router twice, mounts with parameters, static files, a foreign application."""

from __future__ import annotations

import os
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles

_HERE = os.path.dirname(os.path.abspath(__file__))
app = FastAPI()
app.add_middleware(CORSMiddleware, allow_origins=["*"])
inner, outer, shared = APIRouter(prefix="/users"), APIRouter(prefix="/{tenant}"), APIRouter()


@inner.get("/{user}")
async def user(tenant: str, user: int) -> str:
    return f"{tenant} {user}"


@shared.get("/items/{item}")
async def item(item: str) -> str:
    return item


@app.get("/files/{path:path}")
async def files(path: str) -> str:
    return path


@app.get("/fails")
async def fails() -> str:
    raise RuntimeError("on purpose")


@app.get("/plain")
async def plain() -> int:
    return 1


async def foreign(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


outer.include_router(inner)
app.include_router(outer, prefix="/api")
app.include_router(shared, prefix="/v1")
app.include_router(shared, prefix="/v2")
sub = FastAPI()
sub.include_router(shared)
sub.mount("/deeper", CORSMiddleware(sub.router, allow_origins=["*"]))
app.mount("/t/{org}", sub)
app.mount("/fixed", sub)
app.mount("/static", StaticFiles(directory=_HERE), name="static")
app.mount("/foreign", foreign)
if hasattr(app, "frontend"):
    app.frontend("/ui", directory=_HERE, fallback=None)
    pages = APIRouter()
    pages.frontend("/pages", directory=_HERE, fallback=None)
    app.include_router(pages, prefix="/all")

REQUESTS = {
    "GET /api/acme/users/5": (200, "/api/{tenant}/users/{user}"),
    "GET /api/acme/users/x": (422, "/api/{tenant}/users/{user}"),
    "GET /v1/items/1": (200, "/v1/items/{item}"),
    "GET /v2/items/1": (200, "/v2/items/{item}"),
    "GET /t/acme/items/1": (200, "/t/{org}/items/{item}"),
    "GET /t/other/items/9": (200, "/t/{org}/items/{item}"),
    "GET /t/other/deeper/items/9": (200, "/t/{org}/deeper/items/{item}"),
    "GET /t/other/deeper/none": (404, ""),
    "GET /fixed/items/1": (200, "/fixed/items/{item}"),
    "GET /fixed/none": (404, ""),
    "GET /static/fastapi_app.py": (200, "/static"),
    "GET /static/none": (404, "/static"),
    "GET /foreign/none": (404, "/foreign"),
    "GET /docs": (200, "/docs"),
    "GET /plain": (200, "/plain"),
    "POST /plain": (405, "/plain"),
    "OPTIONS /plain": (405, "/plain"),
    "GET /plain/": (307, ""),
    "GET /fails": (500, "/fails"),
    "GET /none": (404, ""),
    "GET /files/a/b": (200, "/files/{path:path}"),
}
if hasattr(app, "frontend"):
    REQUESTS |= {
        "GET /ui/fastapi_app.py": (200, "/ui"),
        "GET /ui/none": (404, "/ui"),
        "POST /ui/fastapi_app.py": (405, "/ui"),
        "GET /all/pages/fastapi_app.py": (200, "/all/pages"),
        "GET /all/none": (404, ""),
    }
