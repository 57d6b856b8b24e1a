"""Pyramid (2.0 and 2.1): ``RoutesMapper.__call__``. A request that only traversal resolves has no route."""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import REPORT, Match, Slashed, report_after, report_before, seam


def install(module: Any) -> None:
    """Hook ``pyramid.urldispatch`` or ``pyramid.router``."""
    if module.__name__ == "pyramid.router":
        report_before(seam(module, "Router"), "invoke_subrequest", _leave_request)
        return
    slashed = Slashed()

    def read(found: Any, _mapper: Any, request: Any) -> Match:
        route = found["route"]
        return request.environ, slashed[route.pattern] if route is not None else ""

    report_after(seam(module, "RoutesMapper"), "__call__", read)


def _leave_request(_router: Any, request: Any) -> None:
    """What a subrequest matches is no route of the request in which it is made, whose environ it may have copied."""
    request.environ.pop(REPORT, None)
