"""Bottle (0.12 and 0.13): ``Router.match``.

An application that was mounted as a WSGI callable is a route with the key ``mountpoint`` in its configuration and a
rule that ends with a wildcard, ``/m/<:re:.*>``: its template is the prefix alone.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.mounts import Mounts
from promgun.routes.reporting import report_after, seam

_REPORT = """\
matched = result[0] if result is not None else None
if matched is None:
    {1}[REPORT].route_known("")
elif "mountpoint.prefix" in matched.config:
    enter(matched.config, {1})
else:
    {1}[REPORT].route_known(matched.rule)
"""


def install(module: Any) -> None:
    """Hook ``bottle``."""
    mounts = Mounts()

    def enter(config: Any, environ: Any) -> None:
        mounts.enter(environ, "/" + config["mountpoint.prefix"].strip("/"), config.get("mountpoint.target"))

    report_after(seam(module, "Router"), "match", _REPORT, enter=enter)
