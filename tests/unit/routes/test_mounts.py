"""Mounts around whatever holds the application that is mounted: whether a router is in it is seen, or learned."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from tests.support.routed import RoutedASGI


async def view(_request: Any) -> PlainTextResponse:
    return PlainTextResponse("view")


def in_closure(application: Any) -> Any:
    async def call(scope: Any, receive: Any, send: Any) -> None:
        await application(scope, receive, send)

    return call


def in_list(application: Any) -> Any:
    held = [application]

    async def call(*given: Any) -> None:
        await held[0](*given)

    return call


class InSlot:
    """Can have no weak reference."""

    __slots__ = ("hidden",)

    def __init__(self, application: Any) -> None:
        self.hidden = application

    async def __call__(self, *given: Any) -> None:
        """Call it."""
        await self.hidden(*given)


@pytest.mark.parametrize(
    ("wrapper", "seen"), [(in_closure, True), (functools.partial, True), (in_list, False), (InSlot, False)]
)
def test_an_application_that_no_wrapper_shows_is_known_from_the_first_match_on(wrapper: Any, seen: bool) -> None:  # noqa: FBT001 - a parameter of the test
    routed = RoutedASGI(Starlette(routes=[Mount("/m", wrapper(Starlette(routes=[Route("/{x}", view)])))]))
    assert routed.ask("GET", "/m/a/b") == (404, "" if seen else "/m")
    assert routed.ask("GET", "/m/a") == (200, "/m/{x}")
    assert routed.ask("GET", "/m/a/b") == (404, "")


async def foreign(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_a_mount_without_a_router_keeps_its_template_beside_one_that_has_it() -> None:
    routes = [Mount("/foreign", in_list(foreign)), Mount("/m", in_list(Starlette(routes=[Route("/{x}", view)])))]
    routed = RoutedASGI(Starlette(routes=[Mount("/{outer}", in_list(Starlette(routes=routes)))]))
    assert routed.ask("GET", "/o/m/a") == (200, "/{outer}/m/{x}")
    assert routed.ask("GET", "/o/m/a/b") == (404, "")
    assert routed.ask("GET", "/o/foreign/a") == (404, "/{outer}/foreign")
    assert routed.ask("GET", "/o/none") == (404, "")
