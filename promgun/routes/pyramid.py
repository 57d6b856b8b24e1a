"""Pyramid (2.0 and 2.1): ``RoutesMapper.__call__``. A request that only traversal resolves has no route."""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import Slashed, report_after, report_before, seam
from promgun.routes.sources import REPORT


def install(module: Any) -> None:
    """Hook ``pyramid.urldispatch`` or ``pyramid.router``."""
    if module.__name__ == "pyramid.router":
        report_before(seam(module, "Router"), "invoke_subrequest", "leave({1})", leave=_leave_request)
        return
    report_after(
        seam(module, "RoutesMapper"),
        "__call__",
        "matched = result['route']\n"
        "carrier = {1}.environ\n"
        "template = slashed[matched.pattern] if matched is not None else ''\n"
        "{report}",
        slashed=Slashed(),
    )


def _leave_request(request: Any) -> None:
    """What a subrequest matches is no route of the request in which it is made, whose environ it may have copied."""
    request.environ.pop(REPORT, None)
