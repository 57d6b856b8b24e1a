"""FastAPI (0.100 to 0.165): ``APIRoute.handle`` where it has one of its own; the rest is Starlette's.

From 0.137 on a route object may stand for several paths, one for each ``include_router``: the path of a request is in
its effective context.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import Match, report_before, seam


def install(module: Any) -> None:
    """Hook ``fastapi.routing``."""
    route = seam(module, "APIRoute")
    if "handle" in vars(route):
        report_before(route, "handle", _read)


def _read(route: Any, scope: Any) -> Match | None:
    context = scope["fastapi"].get("effective_route_context") if "fastapi" in scope else None
    if context is not None and context.original_route is route:
        return scope, context.path
    # It calls that of Starlette's route next, which is hooked too.
    return None
