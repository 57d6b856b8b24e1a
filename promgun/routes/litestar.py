"""Litestar (2.19 to 2.25): ``scope["path_template"]``, which its router sets before it calls what it chose.

The template is reported as a route of HTTP calls its handler's function, and for all else (a mount, a websocket, what a
middleware or a guard answers) as the answer begins, or at the end of a request without one: the rest is bound when the
application is made, before anything can be hooked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from promgun.routes.reporting import REPORT, guarded, hook, report_before, seam

#: Of the class ``HTTPRoute``, with the scope as its first argument.
_HANDLES = "_get_response_for_request"


def install(module: Any) -> None:
    """Hook ``litestar._asgi.asgi_router``, and ``litestar.routes``, which it needs."""
    hook(seam(module, "ASGIRouter"), "__call__", _report_answer)
    route = getattr(sys.modules.get("litestar.routes"), "HTTPRoute", None)
    if hasattr(route, _HANDLES):
        report_before(route, _HANDLES, "{1}[REPORT].route_known({1}['path_template'])")


def _report_answer(call: Callable[..., Any]) -> Callable[..., Any]:
    report = guarded(_report_answered)

    async def call_router(router: Any, scope: Any, receive: Any, send: Any) -> None:
        path, reported = scope.get("path", ""), False

        async def report_and_send(message: Any) -> None:
            nonlocal reported
            if not reported:
                reported = True
                report(scope, path)
            await send(message)

        try:
            await call(router, scope, receive, report_and_send)
        finally:
            if not reported:
                report(scope, path)

    return call_router


def _report_answered(scope: Any, path: str) -> None:
    """Report what was matched: of a mount, which has no template in the scope, the longest of its paths that ``path``
    begins with.
    """
    template: str = scope.get("path_template", "")
    handler = scope.get("route_handler")
    if not template and handler is not None and getattr(handler, "is_mount", False):
        template = max((mount for mount in handler.paths if path.startswith(mount)), key=len, default="")
    scope[REPORT].route_known(template)
