"""Falcon: resources, sinks, static routes, and a middleware that answers before routing."""

from __future__ import annotations

import os
from typing import Any

import falcon
import falcon.asgi

_HERE = os.path.dirname(os.path.abspath(__file__))


class User:
    """A resource."""

    def on_get(self, _req: Any, resp: Any, **_values: Any) -> None:
        """Answer."""
        resp.text = "user"


class Fails:
    """A resource that raises."""

    def on_get(self, _req: Any, _resp: Any) -> None:
        """Raise."""
        raise falcon.HTTPInternalServerError(title="on purpose")


class ShortCut:
    """Answers /short before routing."""

    def process_request(self, req: Any, resp: Any) -> None:
        """Answer."""
        if req.path == "/short":
            resp.complete = True
            resp.text = "short"


class AsyncUser:
    """A resource under ASGI."""

    async def on_get(self, _req: Any, resp: Any, **_values: Any) -> None:
        """Answer."""
        resp.text = "user"


def sink(_req: Any, resp: Any, **_values: Any) -> None:
    resp.text = "sink"


app = falcon.App(middleware=[ShortCut()])
app.add_route("/users/{user:int}", User())
app.add_route("/fails", Fails())
app.add_route("/shop/{shop}/items/{item}", User())
app.add_sink(sink, prefix="/sink/")
app.add_sink(sink, prefix=r"/by/(?P<name>\w+)")
app.add_static_route("/static", _HERE)

asgi = falcon.asgi.App()
asgi.add_route("/users/{user:int}", AsyncUser())

REQUESTS = {
    "GET /users/5": (200, "/users/{user:int}"),
    "HEAD /users/5": (405, "/users/{user:int}"),
    "OPTIONS /users/5": (200, "/users/{user:int}"),
    "DELETE /users/5": (405, "/users/{user:int}"),
    "GET /users/x": (404, ""),
    "GET /fails": (500, "/fails"),
    "GET /shop/a/items/b": (200, "/shop/{shop}/items/{item}"),
    "GET /sink/anything": (200, "/sink/"),
    "GET /by/you": (200, r"/by/(?P<name>\w+)"),
    "GET /static/falcon_app.py": (200, "/static/"),
    "GET /static/none": (404, "/static/"),
    "GET /short": (200, ""),
    "GET /none": (404, ""),
}
ASGI_REQUESTS = {"GET /users/5": (200, "/users/{user:int}"), "GET /none": (404, "")}
