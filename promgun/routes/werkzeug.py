"""Werkzeug (2.2 to 3.1): ``DispatcherMiddleware``, whose keys are the templates of its mounts.

What it adds to SCRIPT_NAME is the same text, but what stands in front of it comes from the server or a proxy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.routes.reporting import enter_mount, enter_router, hook, seam


def install(module: Any) -> None:
    """Hook ``werkzeug.middleware.dispatcher``."""
    hook(seam(module, "DispatcherMiddleware"), "__call__", _report_mount)


def _report_mount(call: Callable[..., Any]) -> Callable[..., Any]:
    def report_and_call(dispatcher: Any, environ: Any, start_response: Any) -> Any:
        try:
            mounts = dispatcher.mounts
            path = environ.get("PATH_INFO", "")
            while path not in mounts and "/" in path:
                path = path.rpartition("/")[0]
            if path in mounts:
                enter_mount(environ, path)
            enter_router(environ, mounts.get(path, dispatcher.app))
        except Exception:  # noqa: BLE001, S110 - the request goes on, without a route
            pass
        return call(dispatcher, environ, start_response)

    return report_and_call
