"""Bottle (0.12 and 0.13): ``Router.match``.

An application that was mounted as a WSGI callable is a route with the key ``mountpoint`` in its configuration and a
rule that ends with a wildcard, ``/m/<:re:.*>``: its template is the prefix alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.routes.reporting import enter_mount, enter_router, hook, report, seam


def install(module: Any) -> None:
    """Hook ``bottle``."""
    hook(seam(module, "Router"), "match", _report_match)


def _report_match(match: Callable[..., Any]) -> Callable[..., Any]:
    def match_and_report(router: Any, environ: Any) -> Any:
        try:
            found = match(router, environ)
        except BaseException:
            report(environ, "")
            raise
        try:
            route = found[0]
            prefix = route.config.get("mountpoint.prefix")
            if prefix is None:
                report(environ, route.rule)
            else:
                enter_mount(environ, "/" + prefix.strip("/"))
                enter_router(environ, route.config.get("mountpoint.target"))
        except Exception:  # noqa: BLE001, S110 - the request goes on, without a route
            pass
        return found

    return match_and_report
