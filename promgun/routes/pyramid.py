"""Pyramid (2.0 and 2.1): ``RoutesMapper.__call__``. A request that only traversal resolves has no route."""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import Match, Slashed, report_after, seam


def install(module: Any) -> None:
    """Hook ``pyramid.urldispatch``."""
    slashed = Slashed()

    def read(found: Any, _mapper: Any, request: Any) -> Match:
        route = found["route"]
        return request.environ, slashed[route.pattern] if route is not None else ""

    report_after(seam(module, "RoutesMapper"), "__call__", read)
