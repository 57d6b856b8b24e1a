"""What the accounting does with routes, seen through Flask: on the board, in failures, by patterns and by hand."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from promgun.routes.sources import FRAMEWORKS, RouteSources
from tests.apps.routes.flask_app import app
from tests.support.routed import RoutedWSGI

pytestmark = pytest.mark.seam


def test_the_rules_are_those_of_flasks_own_table() -> None:
    routed = RoutedWSGI(app)
    known = {rule.rule for rule in app.url_map.iter_rules()}
    for path in ("/", "/users/5", "/again/items/b", "/acme/shop/items/a"):
        assert routed.ask("GET", path).route in known


def test_a_failure_has_the_route_and_so_has_the_board(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_patterns_name_what_the_framework_does_not() -> None:
    routed = RoutedWSGI(app, ["/users/{any}", "/größe/{x}"])
    assert routed.ask("GET", "/users/5").route == "/users/<int:user>"
    assert routed.ask("GET", "/users/x") == (404, "/users/{any}")
    assert routed.ask("GET", "/größe/7").route == "/größe/{x}"
    assert routed.ask("GET", "/named").route == "/by/hand"
    assert routed.ask("GET", "/none").route == ""


def test_a_pattern_is_on_the_board_before_the_application_runs() -> None:
    seen = []

    def plain(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(routed.running_route())
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/a/2":
            environ["promgun.route"] = "/mine"
        elif environ["PATH_INFO"] == "/a/3":
            environ["promgun.route"] = 3
        return []

    routed = RoutedWSGI(plain, ["/a/{x:int}"])
    assert [routed.ask("GET", f"/a/{number}").route for number in (1, 2, 3)] == ["/a/{x:int}", "/mine", "/a/{x:int}"]
    assert seen == ["/a/{x:int}"] * 3


def test_a_version_without_the_hooked_method_gives_one_warning_and_no_route() -> None:
    warnings: list[str] = []
    for name in FRAMEWORKS:
        sources = RouteSources(None, lambda text, *given: warnings.append(text % given))
        sources.install({name: ModuleType(name)})
        sources.install({name: ModuleType(name), "another": sys})
        assert not sources.active
    assert len(warnings) == len(FRAMEWORKS)
    assert all("--metrics-route" in warning for warning in warnings), warnings


def test_a_request_that_lacks_what_a_hook_reads_goes_on_without_a_route() -> None:
    context = type("RequestContext", (), {"match_request": lambda _: "matched"})
    flask: Any = ModuleType("flask.ctx")
    flask.RequestContext = context
    RouteSources(None, pytest.fail).install({"flask.ctx": flask})
    assert context().match_request() == "matched"


def test_what_another_thread_is_importing_is_hooked_later() -> None:
    module = ModuleType("bottle")
    spec: Any = type("Spec", (), {"_initializing": True})()
    module.__spec__ = spec
    sources = RouteSources(None, pytest.fail)
    sources.install({"bottle": module})
    assert not sources.active
    spec._initializing = False
    module.__dict__["Router"] = type("Router", (), {"match": lambda *_: None})
    sources.install({"bottle": module})
    assert sources.active


def test_a_name_of_a_subclass_of_str_is_counted_as_its_text() -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("not comparable")

    odd = type("Odd", (str,), {"__eq__": refuse, "__ne__": refuse, "__hash__": refuse})

    def plain(environ: Any, start_response: Any) -> list[bytes]:
        environ["promgun.route"] = odd("/odd/{x}")
        start_response("200 OK", [])
        return []

    assert RoutedWSGI(plain).ask("GET", "/odd/5") == (200, "/odd/{x}")
