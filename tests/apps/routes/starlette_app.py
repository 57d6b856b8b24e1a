"""Starlette: routes, mounts by lists of routes, hosts, one route object in two mounts, static files."""

from __future__ import annotations

import os
from typing import Any

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

_HERE = os.path.dirname(os.path.abspath(__file__))


async def view(_request: Any) -> PlainTextResponse:
    return PlainTextResponse("view")


async def named(request: Any) -> PlainTextResponse:
    request.scope["promgun.route"] = "/by/hand"
    return PlainTextResponse("named")


class Endpoint(HTTPEndpoint):
    """Has methods of its own."""

    async def get(self, _request: Any) -> PlainTextResponse:
        """Answer."""
        return PlainTextResponse("endpoint")


def closed(application: Any) -> Any:
    async def call(scope: Any, receive: Any, send: Any) -> None:
        await application(dict(scope), receive, send)

    return call


one = Route("/one/{name}", view)
app = Starlette(
    routes=[
        Route("/", view),
        Route("/users/{user:int}", view, methods=["GET", "POST"]),
        Route("/endpoint", Endpoint),
        Route("/slash/", view),
        Route("/named", named),
        Mount("/a", routes=[one, Mount("/b/{c}", routes=[one])]),
        Mount("/static", StaticFiles(directory=_HERE)),
        Mount("/closed/{c}", closed(Router([one]))),
        Host("api.localhost", Router([Route("/hosted", view)])),
    ]
)

REQUESTS = {
    "GET /": (200, "/"),
    "GET /users/5": (200, "/users/{user:int}"),
    "HEAD /users/5": (200, "/users/{user:int}"),
    "DELETE /users/5": (405, "/users/{user:int}"),
    "OPTIONS /users/5": (405, "/users/{user:int}"),
    "GET /users/x": (404, ""),
    "GET /endpoint": (200, "/endpoint"),
    "DELETE /endpoint": (405, "/endpoint"),
    "GET /slash": (307, ""),
    "GET /named": (200, "/by/hand"),
    "GET /a/one/x": (200, "/a/one/{name}"),
    "GET /a/b/7/one/x": (200, "/a/b/{c}/one/{name}"),
    "GET /a/b/7/none": (404, ""),
    "GET /static/starlette_app.py": (200, "/static"),
    "GET /static/none": (404, "/static"),
    "GET /closed/7/one/x": (200, "/closed/{c}/one/{name}"),
    "GET /closed/7/none": (404, ""),
    "GET /none": (404, ""),
}
