"""Flask: each request is counted under the rule that matched, mounts of Werkzeug's dispatcher included."""

from __future__ import annotations

import pytest

from tests.apps.routes.flask_app import app, mounted
from tests.support.routed import RoutedWSGI

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


def test_each_request_has_the_rule_that_matched() -> None:
    routed = RoutedWSGI(app)
    assert {line: routed.ask(*line.split()) for line in REQUESTS} == REQUESTS
    known = {rule.rule for rule in app.url_map.iter_rules()}
    assert {route for _, route in REQUESTS.values()} - known == {"", "/by/hand", "/stream/{late}"}


def test_mounts_are_the_applications_text_whatever_script_name_says() -> None:
    routed = RoutedWSGI(mounted)
    got = {line: routed.ask(*line.split(), SCRIPT_NAME="/from/a/proxy") for line in MOUNTED}
    assert got == MOUNTED


def test_route_is_known_while_the_request_runs_and_failures_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    routed = RoutedWSGI(app)
    seen = []

    def look(user: int) -> str:
        seen.append(routed.running_route())
        raise SystemError(user)

    monkeypatch.setitem(app.view_functions, "user", look)
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", "yes")
    assert routed.ask("GET", "/users/5") == (500, "/users/<int:user>")
    assert seen == ["/users/<int:user>"]
    assert routed.failed == [("GET", "/users/<int:user>", "SystemError")]
