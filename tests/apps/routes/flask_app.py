"""Flask: blueprints, converters, a static folder, errors, a test client inside a request; and mounts around it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Flask, Response, redirect, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware

app = Flask(__name__, static_folder=os.path.dirname(__file__), static_url_path="/assets")
nested = Blueprint("nested", __name__, url_prefix="/<tenant>")
shop = Blueprint("shop", __name__)


@app.route("/")
def index() -> str:
    return "index"


@app.route("/users/<int:user>", methods=["GET", "POST"])
def user(user: int) -> str:
    return f"{user}"


@app.route("/moved")
def moved() -> Any:
    return redirect("/")


@app.route("/slash/")
def slash() -> str:
    return "slash"


@app.route("/fails")
def fails() -> str:
    raise RuntimeError("on purpose")


@app.route("/inside/<int:user>")
def inside(user: int) -> str:
    return str(app.test_client().get(f"/users/{user}").get_data(as_text=True))


@app.route("/stream")
def stream() -> Response:
    environ = request.environ

    def pieces() -> Iterator[bytes]:
        yield b"a"
        environ["promgun.route"] = "/stream/{late}"
        yield b"b"

    return Response(pieces(), headers={"X-Accel-Buffering": "no"})


@app.route("/named")
def named() -> str:
    request.environ["promgun.route"] = "/by/hand"
    return "named"


@app.route("/named-fails")
def named_fails() -> str:
    request.environ["promgun.route"] = "/by/hand"
    raise RuntimeError("on purpose")


@shop.route("/items/<name>")
def item(name: str, tenant: str = "") -> str:
    return tenant + name


nested.register_blueprint(shop, url_prefix="/shop")
app.register_blueprint(nested)
app.register_blueprint(shop, name="again", url_prefix="/again")


def foreign(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


mounted_app = DispatcherMiddleware(app, {"/m": DispatcherMiddleware(app, {"/inner": app}), "/foreign": foreign})

REQUESTS = {
    "GET /": (200, "/"),
    "GET /users/5": (200, "/users/<int:user>"),
    "HEAD /users/5": (200, "/users/<int:user>"),
    "OPTIONS /users/5": (200, "/users/<int:user>"),
    "DELETE /users/5": (405, ""),
    "GET /users/x": (404, ""),
    "GET /moved": (302, "/moved"),
    "GET /slash": (308, ""),
    "GET /slash/": (200, "/slash/"),
    "GET /fails": (500, "/fails"),
    "GET /inside/5": (200, "/inside/<int:user>"),
    "GET /acme/shop/items/a": (200, "/<tenant>/shop/items/<name>"),
    "GET /again/items/b": (200, "/again/items/<name>"),
    "GET /assets/flask_app.py": (200, "/assets/<path:filename>"),
    "GET /assets/none": (404, "/assets/<path:filename>"),
    "GET /none": (404, ""),
    "GET /named": (200, "/by/hand"),
    "GET /named-fails": (500, "/by/hand"),
    "GET /stream": (200, "/stream/{late}"),
}
MOUNTED = {
    "GET /users/5": (200, "/users/<int:user>"),
    "GET /m/users/5": (200, "/m/users/<int:user>"),
    "GET /m/": (200, "/m/"),
    "GET /m/none": (404, ""),
    "GET /m/inner/users/5": (200, "/m/inner/users/<int:user>"),
    "GET /foreign": (404, "/foreign"),
    "GET /foreign/x/y": (404, "/foreign"),
}
