"""Pyramid: routes, a prefix, view and route predicates, static views, traversal."""

from __future__ import annotations

import os
from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response

_HERE = os.path.dirname(os.path.abspath(__file__))


def view(_request: Any) -> Any:
    return Response("view")


def fails(_request: Any) -> Any:
    return Response("on purpose", status=500)


def moved(_request: Any) -> Any:
    raise HTTPFound("/")


def subrequest(request: Any) -> Any:
    return request.invoke_subrequest(request.blank("/users/5"))


def copied(request: Any) -> Any:
    inner = request.copy()
    inner.path_info = "/users/5"
    return request.invoke_subrequest(inner)


def shop(config: Any) -> None:
    config.add_route("item", "/items/{item}")
    config.add_view(view, route_name="item")


with Configurator() as config:
    config.add_route("index", "/")
    config.add_view(view, route_name="index")
    config.add_route("user", r"users/{user:\d+}")
    config.add_view(view, route_name="user", request_method="GET")
    config.add_route("fails", "/fails")
    config.add_view(fails, route_name="fails")
    config.add_route("moved", "/moved")
    config.add_view(moved, route_name="moved")
    config.add_route("subrequest", "/subrequest")
    config.add_view(subrequest, route_name="subrequest")
    config.add_route("copied", "/copied/{how}")
    config.add_view(copied, route_name="copied")
    config.add_route("posted", "/either", request_method="POST")
    config.add_view(view, route_name="posted")
    config.add_route("rest", "/rest/*rest")
    config.add_view(view, route_name="rest")
    config.include(shop, route_prefix="/shop/{shop}")
    config.add_static_view("static", _HERE)
    config.add_view(view, name="traversed")
    app = config.make_wsgi_app()

REQUESTS = {
    "GET /": (200, "/"),
    "GET /users/5": (200, r"/users/{user:\d+}"),
    "POST /users/5": (404, r"/users/{user:\d+}"),
    "GET /users/x": (404, ""),
    "GET /fails": (500, "/fails"),
    "GET /moved": (302, "/moved"),
    "GET /subrequest": (200, "/subrequest"),
    "GET /copied/whole": (200, "/copied/{how}"),
    "POST /either": (200, "/either"),
    "GET /either": (404, ""),
    "GET /rest/a/b": (200, "/rest/*rest"),
    "GET /shop/a/items/b": (200, "/shop/{shop}/items/{item}"),
    "GET /static/pyramid_app.py": (200, "/static/*subpath"),
    "GET /static/none": (404, "/static/*subpath"),
    "GET /traversed": (200, ""),
    "GET /none": (404, ""),
}
