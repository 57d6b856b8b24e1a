"""FastAPI (0.100 to 0.165): ``APIRoute.handle`` where it has one of its own; the rest is Starlette's.

From 0.137 on a route object may stand for several paths, one for each ``include_router``: the path of a request is in
its effective context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.routes.reporting import hook, report, seam


def install(module: Any) -> None:
    """Hook ``fastapi.routing``."""
    route = seam(module, "APIRoute")
    if "handle" in vars(route):
        hook(route, "handle", _report_context)


def _report_context(handle: Callable[..., Any]) -> Callable[..., Any]:
    def report_and_handle(route: Any, scope: Any, receive: Any, send: Any) -> Any:
        try:
            context = scope.get("fastapi", {}).get("effective_route_context")
            if context is not None and context.original_route is route:
                report(scope, context.path)
            else:
                report(scope, route.path)
        except Exception:  # noqa: BLE001, S110 - the request goes on, without a route
            pass
        return handle(route, scope, receive, send)

    return report_and_handle
