"""Each framework under ASGI: the hooks report the template of the framework's own table of routes."""

from __future__ import annotations

import gc
import importlib
import weakref

import pytest

from tests.support.routed import RoutedASGI, module_of

#: The name of the module, of the application in it, and of the table of requests.
APPLICATIONS = [
    ("starlette", "app", "REQUESTS"),
    ("fastapi", "app", "REQUESTS"),
    ("litestar", "app", "REQUESTS"),
    ("quart", "app", "REQUESTS"),
    ("django", "asgi", "ASGI_REQUESTS"),
    ("falcon", "asgi", "ASGI_REQUESTS"),
]
pytestmark = [
    pytest.mark.seam,
    pytest.mark.usefixtures("quiet"),
    # Litestar 2.25 prefers parameters that older versions do not know.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # Bottle 0.12 leaves an old finder in sys.meta_path.
    pytest.mark.filterwarnings("ignore:_ImportRedirect:ImportWarning"),
]


@pytest.mark.parametrize(("framework", "name", "table"), APPLICATIONS)
def test_each_request_has_the_template_that_matched(framework: str, name: str, table: str) -> None:
    module = module_of(framework)
    routed = RoutedASGI(getattr(module, name))
    requests = getattr(module, table)
    assert {line: routed.ask(*line.split()) for line in requests} == requests


def test_what_middleware_answers_before_routing_has_no_route() -> None:
    routed = RoutedASGI(module_of("fastapi").app)
    preflight = [(b"origin", b"http://a"), (b"access-control-request-method", b"GET")]
    assert routed.ask("OPTIONS", "/plain", headers=preflight) == (200, "")
    assert routed.ask("OPTIONS", "/t/acme/deeper/items/1", headers=preflight) == (200, "")


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
def test_root_path_is_no_part_of_a_route(framework: str) -> None:
    path, route = {"starlette": ("/a/one/x", "/a/one/{name}"), "fastapi": ("/t/x/items/1", "/t/{org}/items/{item}")}[
        framework
    ]
    routed = RoutedASGI(module_of(framework).app)
    # Starlette before 0.33 expects the path without root_path.
    answers = [routed.ask("GET", f"{before}{path}", root_path="/from/a/proxy") for before in ("/from/a/proxy", "")]
    assert {answer.route for answer in answers if answer.status == 200} == {route}


@pytest.mark.parametrize(
    ("framework", "path"), [("starlette", "/a/one/x"), ("litestar", "/users/5"), ("litestar", "/foreign/x")]
)
def test_a_scope_ends_with_its_request(framework: str, path: str) -> None:
    class InScope:
        """Is seen to be gone."""

    routed = RoutedASGI(module_of(framework).app)
    routed.ask("GET", path)
    gc.collect()
    gc.disable()
    try:
        in_scope = InScope()
        end = weakref.ref(in_scope)
        routed.ask("GET", path, test=in_scope)
        del in_scope
        assert end() is None
    finally:
        gc.enable()


def test_the_host_of_a_route_is_no_part_of_it() -> None:
    routed = RoutedASGI(module_of("starlette").app)
    assert routed.ask("GET", "/hosted", headers=[(b"host", b"api.localhost")]) == (200, "/hosted")


def test_litestar_names_the_route_while_its_handler_runs() -> None:
    litestar = importlib.import_module("litestar")
    seen = []

    @litestar.get("/look/{item:str}")  # type: ignore[untyped-decorator] # one of the versions is installed
    async def look(item: str) -> str:
        seen.append(routed.route)
        return item

    routed = RoutedASGI(litestar.Litestar([look]))
    assert routed.ask("GET", "/look/x") == (200, "/look/{item}")
    assert seen == ["/look/{item}"]


@pytest.mark.parametrize("bridge", ["starlette.middleware.wsgi WSGIMiddleware", "asgiref.wsgi WsgiToAsgi"])
@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated")
def test_an_application_of_wsgi_that_is_mounted_under_asgi_names_its_routes(bridge: str) -> None:
    """As MLflow serves its Flask application through FastAPI."""
    module, name = bridge.split()
    flask = module_of("flask").app
    wrapped = getattr(importlib.import_module(module), name)(flask)
    fastapi = importlib.import_module("fastapi")
    app = fastapi.FastAPI()
    app.mount("/deep/{er}", wrapped)
    app.mount("/", wrapped)
    routed = RoutedASGI(app)
    assert routed.ask("GET", "/users/5") == (200, "/users/<int:user>")
    assert routed.ask("GET", "/users/x") == (404, "")
    assert routed.ask("GET", "/deep/7/users/5") == (200, "/deep/{er}/users/<int:user>")
    assert routed.ask("GET", "/docs") == (200, "/docs")
