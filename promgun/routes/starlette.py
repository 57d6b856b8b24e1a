"""Starlette (0.27 to 1.10): the ``handle`` of routes and mounts, which the router calls for what it chose.

It is called for a 405 too, so such an answer has the template. ``root_path`` is not looked at: a proxy may have set it.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.mounts import Mounts
from promgun.routes.reporting import report_before, seam


def install(module: Any) -> None:
    """Hook ``starlette.routing``."""
    mounts = Mounts()

    def enter(mount: Any, scope: Any) -> None:
        mounts.enter(scope, mount.path, getattr(mount, "_base_app", mount.app))

    for name in ("Route", "WebSocketRoute"):
        report_before(seam(module, name), "handle", "carrier = {1}\ntemplate = {0}.path\n{report}")
    report_before(seam(module, "Mount"), "handle", "enter({0}, {1})", enter=enter)
