"""Quart: converters, a blueprint, errors, a test client inside a request."""

from __future__ import annotations

from quart import Blueprint, Quart

app = Quart(__name__)
shop = Blueprint("shop", __name__, url_prefix="/shop/<tenant>")


@app.route("/")
async def index() -> str:
    return "index"


@app.route("/users/<int:user>", methods=["GET", "POST"])
async def user(user: int) -> str:
    return f"{user}"


@app.route("/inside/<int:user>")
async def inside(user: int) -> str:
    response = await app.test_client().get(f"/users/{user}")
    return str(await response.get_data(as_text=True))


@app.route("/fails")
async def fails() -> str:
    raise RuntimeError("on purpose")


@app.route("/slash/")
async def slash() -> str:
    return "slash"


@shop.route("/items/<name>")
async def item(tenant: str, name: str) -> str:
    return tenant + name


app.register_blueprint(shop)

REQUESTS = {
    "GET /": (200, "/"),
    "GET /users/5": (200, "/users/<int:user>"),
    "OPTIONS /users/5": (200, "/users/<int:user>"),
    "DELETE /users/5": (405, ""),
    "GET /users/x": (404, ""),
    "GET /inside/5": (200, "/inside/<int:user>"),
    "GET /slash": (308, ""),
    "GET /fails": (500, "/fails"),
    "GET /shop/a/items/b": (200, "/shop/<tenant>/items/<name>"),
    "GET /none": (404, ""),
}
