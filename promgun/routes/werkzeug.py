"""Werkzeug (2.2 to 3.1): ``DispatcherMiddleware``, whose keys are the templates of its mounts.

What it adds to SCRIPT_NAME is the same text, but what stands in front of it comes from the server or a proxy.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.mounts import Mounts
from promgun.routes.reporting import report_before, seam


def install(module: Any) -> None:
    """Hook ``werkzeug.middleware.dispatcher``."""
    mounts = Mounts()

    def enter(dispatcher: Any, environ: Any) -> None:
        mounted = dispatcher.mounts
        path = environ.get("PATH_INFO", "")
        while path not in mounted and "/" in path:
            path = path.rpartition("/")[0]
        if path in mounted:
            mounts.enter(environ, path, mounted[path])

    report_before(seam(module, "DispatcherMiddleware"), "__call__", "enter({0}, {1})", enter=enter)
