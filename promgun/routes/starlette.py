"""Starlette (0.27 to 1.10): the ``handle`` of routes and mounts, which the router calls for what it chose.

It is called for a 405 too, so such an answer has the template. ``root_path`` is not looked at: a proxy may have set it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.routes.reporting import MOUNTS, enter_mount, hook, report, seam


def install(module: Any) -> None:
    """Hook ``starlette.routing``."""
    hook(seam(module, "Route"), "handle", report_path)
    hook(seam(module, "WebSocketRoute"), "handle", report_path)
    hook(seam(module, "Mount"), "handle", _report_mount)
    hook(seam(module, "Router"), "__call__", _begin_matching)


def report_path(handle: Callable[..., Any]) -> Callable[..., Any]:
    """Return the ``handle`` of a route's class with a report of the route's path in front."""

    def report_and_handle(route: Any, scope: Any, receive: Any, send: Any) -> Any:
        try:  # noqa: SIM105 - suppress() would cost each request a context manager
            report(scope, route.path)
        except Exception:  # noqa: BLE001, S110 - the request goes on, without a route
            pass
        return handle(route, scope, receive, send)

    return report_and_handle


def _report_mount(handle: Callable[..., Any]) -> Callable[..., Any]:
    def report_and_handle(mount: Any, scope: Any, receive: Any, send: Any) -> Any:
        try:
            enter_mount(scope, mount.path)
            if hasattr(getattr(mount, "_base_app", mount.app), "routes"):
                # What has a router names a route when that has matched.
                report(scope, "")
        except Exception:  # noqa: BLE001, S110 - the request goes on, without a route
            pass
        return handle(mount, scope, receive, send)

    return report_and_handle


def _begin_matching(call: Callable[..., Any]) -> Callable[..., Any]:
    # Servers tell ASGI 3 from ASGI 2 by whether __call__ is a coroutine function.
    async def call_router(router: Any, scope: Any, receive: Any, send: Any) -> None:
        if MOUNTS in scope:
            report(scope, "")
        await call(router, scope, receive, send)

    return call_router
