"""Bottle (0.12 and 0.13): ``Router.match``.

An application that was mounted as a WSGI callable is a route with the key ``mountpoint`` in its configuration and a
rule that ends with a wildcard, ``/m/<:re:.*>``: its template is the prefix alone.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.mounts import Mounts
from promgun.routes.reporting import Match, report_after, seam


def install(module: Any) -> None:
    """Hook ``bottle``."""
    mounts = Mounts()

    def read(found: Any, _router: Any, environ: Any) -> Match | None:
        if found is None:
            return environ, ""
        route = found[0]
        prefix = route.config.get("mountpoint.prefix")
        if prefix is None:
            return environ, route.rule
        mounts.enter(environ, "/" + prefix.strip("/"), route.config.get("mountpoint.target"))
        return None

    report_after(seam(module, "Router"), "match", read)
