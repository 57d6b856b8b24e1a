"""Pyramid (2.0 and 2.1): ``RoutesMapper.__call__``. A request that only traversal resolves has no route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.routes.reporting import hook, report, seam, with_slash


def install(module: Any) -> None:
    """Hook ``pyramid.urldispatch``."""
    hook(seam(module, "RoutesMapper"), "__call__", _report_match)


def _report_match(find: Callable[..., Any]) -> Callable[..., Any]:
    def find_and_report(mapper: Any, request: Any) -> Any:
        found = find(mapper, request)
        try:
            route = found["route"]
            report(request.environ, with_slash(route.pattern) if route is not None else "")
        except Exception:  # noqa: BLE001, S110 - the request goes on, without a route
            pass
        return found

    return find_and_report
