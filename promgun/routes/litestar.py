"""Litestar (2.19 to 2.25): ``scope["path_template"]``, which its router sets before it calls what it chose.

Routes are bound when the application is made, before anything can be hooked, so the template is reported as the answer
begins, or at the end of a request without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.routes.reporting import hook, report, seam


def install(module: Any) -> None:
    """Hook ``litestar._asgi.asgi_router``."""
    hook(seam(module, "ASGIRouter"), "__call__", _report_template)


def _report_template(call: Callable[..., Any]) -> Callable[..., Any]:
    async def call_router(router: Any, scope: Any, receive: Any, send: Any) -> None:
        path, reported = scope.get("path", ""), False

        def report_once() -> None:
            nonlocal reported
            if not reported:
                reported = True
                try:  # noqa: SIM105 - suppress() would cost each request a context manager
                    report(scope, _template(scope, path))
                except Exception:  # noqa: BLE001, S110 - the request goes on, without a route
                    pass

        async def report_and_send(message: Any) -> None:
            report_once()
            await send(message)

        try:
            await call(router, scope, receive, report_and_send)
        finally:
            report_once()

    return call_router


def _template(scope: Any, path: str) -> str:
    """Return the template of what was matched: of a mount, which has none in the scope, the longest of its paths that
    ``path`` begins with.
    """
    template: str = scope.get("path_template", "")
    handler = scope.get("route_handler")
    if template or handler is None or not getattr(handler, "is_mount", False):
        return template
    return max((mount for mount in handler.paths if path.startswith(mount)), key=len, default="")
