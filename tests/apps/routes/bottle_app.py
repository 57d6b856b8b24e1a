"""Bottle: filters, static files, and mounts of its own and of foreign applications."""

from __future__ import annotations

import os
from typing import Any

import bottle

_HERE = os.path.dirname(os.path.abspath(__file__))
app, child = bottle.Bottle(), bottle.Bottle()


@app.route("/")
@app.route("/users/<user:int>", ["GET", "POST"])
@child.route("/s/<name>")
def view(**_values: Any) -> str:
    return "view"


@app.route("/fails")
def fails() -> str:
    raise RuntimeError("on purpose")


@app.route("/moved")
def moved() -> None:
    bottle.redirect("/")


@app.route("/files/<name:path>")
def files(name: str) -> Any:
    return bottle.static_file(name, _HERE)


def foreign(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


# Mounted with options, an application of Bottle's is called as any other; without, its routes are copied.
app.mount("/m/", child, skip=[])
app.mount("/foreign/", foreign)
# Bottle 0.13 writes the prefix of a mount into the child's own routes, which a second mount asks.
twice = bottle.Bottle()
twice.route("/t/<name>", callback=view)
twice.route("/fixed", callback=view)
app.mount("/first/", twice)
app.mount("/second/", twice)

REQUESTS = {
    "GET /": (200, "/"),
    "GET /users/5": (200, "/users/<user:int>"),
    "HEAD /users/5": (200, "/users/<user:int>"),
    "OPTIONS /users/5": (405, ""),
    "GET /users/x": (404, ""),
    "GET /fails": (500, "/fails"),
    "GET /moved": (303, "/moved"),
    "GET /files/bottle_app.py": (200, "/files/<name:path>"),
    "GET /files/none": (404, "/files/<name:path>"),
    "GET /m/s/you": (200, "/m/s/<name>"),
    "GET /m/none": (404, ""),
    "GET /first/t/you": (200, "/first/t/<name>"),
    "GET /first/fixed": (200, "/first/fixed"),
    "GET /second/t/you": (200, "/second/t/<name>"),
    "GET /second/fixed": (200, "/second/fixed"),
    "GET /second/none": (404, ""),
    "GET /foreign/x": (404, "/foreign"),
    "GET /none": (404, ""),
}
