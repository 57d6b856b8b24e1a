"""FastAPI (0.100 to 0.165): ``APIRoute.handle`` where it has one of its own; the rest is Starlette's.

From 0.137 on a route object may stand for several paths, one for each ``include_router``: the path of a request is in
its effective context.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import report_before, seam

#: Where there is no context, it calls that of Starlette's route next, which is hooked too.
_REPORT = """\
matched = {1}["fastapi"].get("effective_route_context") if "fastapi" in {1} else None
if matched is not None and matched.original_route is {0}:
    {1}[REPORT].route_known(matched.path)
"""


def install(module: Any) -> None:
    """Hook ``fastapi.routing``."""
    route = seam(module, "APIRoute")
    if "handle" in vars(route):
        report_before(route, "handle", _REPORT)
