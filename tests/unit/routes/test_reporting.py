"""The hook around a framework's method: it can be called as the method can, and no error of ours leaves it."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from promgun.routes.mounts import MountedRequest
from promgun.routes.reporting import REPORT, MissingSeamError, report_after, report_before


def carrier(**more: Any) -> tuple[dict[str, Any], list[str]]:
    """Return a carrier, and the routes that are reported by it."""
    routes: list[str] = []
    return {REPORT: SimpleNamespace(route_known=routes.append), **more}, routes


def test_no_variable_of_a_hook_is_taken_for_a_parameter_of_the_method() -> None:
    class Router:
        def match(self, matched: Any, result: str, method: str) -> str:
            return f"{result} {method} {len(matched)}"

    report_after(Router, "match", "matched = {1}\nmatched[REPORT].route_known(tell(result))", tell=str.upper)
    environ, routes = carrier()
    assert Router().match(environ, "a", "b") == "a b 1"
    assert routes == ["A B 1"]


def test_a_hook_is_called_in_every_way_in_which_the_method_can_be() -> None:
    class Plain:
        def match(self, environ: Any) -> str:
            return f"matched {len(environ)}"

    class Optional:
        def match(self, environ: Any, *more: Any, match: str = "matched", **named: Any) -> str:
            return f"{match} {len(environ) + len(more) + len(named)}"

    for owner in (Plain, Optional):
        report_after(owner, "match", "{1}[REPORT].route_known(result)")
        environ, routes = carrier()
        instance: Any = owner()
        assert instance.match(environ) == "matched 1"
        assert routes == ["matched 1"]
        assert type(instance).match.__name__ == "match"
    assert Plain().match(environ=environ) == "matched 1"
    assert Optional().match(environ, 1, match="found", another=2) == "found 3"
    assert routes == ["matched 1", "matched 1", "found 3"]


def test_no_error_of_a_hook_reaches_the_request() -> None:
    class Router:
        def match(self, environ: Any) -> Any:
            return environ["path"]

        def before(self, environ: Any) -> Any:
            return environ["path"]

    report_after(Router, "match", "{0}.missing({1})")
    report_before(Router, "before", "{0}.missing({1})")
    assert Router().match({"path": 1}) == Router().before({"path": 1}) == 1
    for call in (Router().match, Router().before):
        with pytest.raises(KeyError) as error:
            call({})
        assert error.value.__context__ is None


def test_a_method_that_raises_is_read_without_a_result() -> None:
    class Router:
        def match(self, environ: Any) -> Any:
            raise LookupError(len(environ))

    report_after(Router, "match", "{1}[REPORT].route_known('' if result is None else '/wrong')")
    environ, routes = carrier()
    with pytest.raises(LookupError):
        Router().match(environ)
    assert routes == [""]


def test_a_coroutine_function_that_servers_ask_about_remains_one() -> None:
    class Router:
        async def __call__(self, scope: Any) -> list[str]:
            return [*routes, scope["path"]]

        async def handle(self, scope: Any) -> list[str]:
            return [*routes, scope["path"]]

    for name in ("__call__", "handle"):
        report_before(Router, name, "{1}[REPORT].route_known('/x')")
    assert inspect.iscoroutinefunction(Router.__call__)
    scope, routes = carrier(path="/path")
    scope[REPORT] = MountedRequest(scope[REPORT], "/m", lambda: None)
    assert asyncio.run(Router()(scope)) == ["/m/x", "/path"]
    assert asyncio.run(Router().handle(scope)) == ["/m/x", "/m/x", "/path"]


def test_a_hook_is_put_once_and_only_where_there_is_a_method() -> None:
    class Router:
        def match(self, environ: Any) -> Any:
            return environ

    for _ in range(2):
        report_after(Router, "match", "{1}[REPORT].route_known('/x')")
    environ, routes = carrier()
    Router().match(environ)
    assert routes == ["/x"]
    with pytest.raises(MissingSeamError, match=r"Router\.find"):
        report_after(Router, "find", "pass")
