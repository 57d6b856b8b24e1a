"""The hook around a framework's method: it can be called as the method can, and no error of ours leaves it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from promgun.routes.mounts import MountedRequest
from promgun.routes.reporting import report_after, report_before
from promgun.routes.sources import REPORT, MissingSeamError
from promgun.store.board import SIZE
from promgun.store.request_table import NOWHERE, OVER, Phase, RunningRequests, describe, read_running
from promgun.workers._asgi_follower import AsgiRequest
from promgun.workers._request_state import FollowedState, RequestState


def carrier(**more: Any) -> tuple[dict[str, Any], list[str]]:
    """Return a carrier, and the routes that are reported by it."""
    routes: list[str] = []
    return {REPORT: SimpleNamespace(region=OVER, route_known=routes.append), **more}, routes


def test_no_variable_of_a_hook_is_taken_for_a_parameter_of_the_method() -> None:
    class Router:
        def match(self, matched: Any, result: str, method: str) -> str:
            return f"{result} {method} {len(matched)}"

    report_after(Router, "match", "carrier = matched = {1}\ntemplate = tell(result)\n{report}", tell=str.upper)
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
        report_after(owner, "match", "carrier = {1}\ntemplate = result\n{report}")
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

    report_after(Router, "match", "carrier = {1}\ntemplate = '' if result is None else '/wrong'\n{report}")
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
        report_before(Router, name, "carrier = {1}\ntemplate = '/x'\n{report}")
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
        report_after(Router, "match", "carrier = {1}\ntemplate = '/x'\n{report}")
    environ, routes = carrier()
    Router().match(environ)
    assert routes == ["/x"]
    with pytest.raises(MissingSeamError, match=r"Router\.find"):
        report_after(Router, "find", "pass")


class Table:
    """A table of running requests with one that has reached the application, and its state."""

    def __init__(self, state: RequestState, *, region: bool = True) -> None:
        self._memory = bytearray(SIZE)
        self.running = state.table = RunningRequests(self._memory)
        state.region, state.route, state.recorded, state.start = NOWHERE, "", False, 5
        if region:
            state.region = self.running.free.pop()
            describe(self.running.cells, state.region * 8, b"GET\0\0\0/", Phase.APPLICATION, 5)

    @property
    def shown(self) -> list[str]:
        """The routes of running requests, as other processes see them."""
        return [request.route for request in read_running(self._memory)]


@pytest.mark.parametrize("new_state", [FollowedState, AsgiRequest, RequestState])
def test_a_hook_writes_what_route_known_would(new_state: Callable[[], RequestState]) -> None:
    """The hook has the body of ``route_known`` for a request without a route; here the state is in each condition."""

    class Router:
        def match(self, environ: Any) -> Any:
            return environ["template"]

    report_after(Router, "match", "carrier = {1}\ntemplate = result\n{report}")
    templates = ("/a/<x>", "", "/a/<x>", "/b", "/a/<x>", "/" + "long" * 60, "/ü", "")
    for pattern_route in ("", "/by/pattern"):
        for region in (True, False):
            pairs = []
            for way in ("hook", "call"):
                state = new_state()
                table = Table(state, region=region)
                state.pattern_route = pattern_route
                state.route_known("")
                seen = []
                for number, template in enumerate((*templates, "/late")):
                    state.recorded = number == len(templates)
                    if way == "hook":
                        Router().match({REPORT: state, "template": template})
                    else:
                        state.route_known(template)
                    seen.append((state.route, table.shown))
                pairs.append(seen)
            assert pairs[0] == pairs[1]
            assert pairs[0][0] == ("/a/<x>", ["/a/<x>"] if region else [])


def test_a_route_that_was_written_before_is_written_at_once() -> None:
    class Router:
        def match(self, environ: Any) -> Any:
            return environ["template"]

    report_after(Router, "match", "carrier = {1}\ntemplate = result\n{report}")
    state = FollowedState()
    table = Table(state)
    Router().match({REPORT: state, "template": "/a"})
    state.route = ""
    table.running.forget_route(state.region, "/a")
    assert table.shown == [""]
    state.route_known = None  # type: ignore[assignment] # a call of it would fail, and no error of a hook is seen
    Router().match({REPORT: state, "template": "/a"})
    assert (state.route, table.shown) == ("/a", ["/a"])
