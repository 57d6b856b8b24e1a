"""FastAPI (0.100 to 0.165): ``APIRoute.handle`` where it has one of its own; the rest is Starlette's.

From 0.137 on a route object may stand for several paths, one for each ``include_router``: the path of a request is in
its effective context. The files of a ``frontend`` (seen in 0.165) are counted under its path, as those of a mount are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.routes.reporting import report_before, seam
from promgun.routes.sources import REPORT

#: Where there is no context, it calls that of Starlette's route next, which is hooked too.
_REPORT = """\
matched = {1}["fastapi"].get("effective_route_context") if "fastapi" in {1} else None
if matched is not None and matched.original_route is {0}:
    carrier = {1}
    template = matched.path
    {report}
"""


def install(module: Any) -> None:
    """Hook ``fastapi.routing``."""
    route = seam(module, "APIRoute")
    if "handle" in vars(route):
        report_before(route, "handle", _REPORT)
    group = getattr(module, "_FrontendRouteGroup", None)
    if group is not None:
        join = seam(module, "_join_frontend_paths")
        report_before(group, "handle", "report({0}, {1}, join)", report=_report_frontend, join=join)


def _report_frontend(group: Any, scope: Any, join: Callable[[str, str], str]) -> None:
    """Report which of the frontends of a router answers, if one does."""
    context = scope["fastapi"].get("effective_route_context") if "fastapi" in scope else None
    prefix = context.frontend_prefix if context is not None and context.original_route is group else ""
    frontend = group._match(scope, prefix=prefix)[2]  # noqa: SLF001 - as handle finds it
    if frontend is not None:
        scope[REPORT].route_known(join(prefix, frontend.path))
