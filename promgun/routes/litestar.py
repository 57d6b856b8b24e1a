"""Litestar (2.19 to 2.25): ``scope["path_template"]``, which its router sets before it calls what it chose.

The template is reported as a route of HTTP calls its handler's function, and for all else (a mount, a websocket, what a
middleware or a guard answers) as the answer begins, or at the end of a request without one: the rest is bound when the
application is made, before anything can be hooked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from promgun.routes.mounts import Mounts
from promgun.routes.reporting import hook, report_before, seam
from promgun.routes.sources import REPORT
from promgun.store.request_table import OVER

#: Of the class ``HTTPRoute``, with the scope as its first argument.
_HANDLES = "_get_response_for_request"


def install(module: Any) -> None:
    """Hook ``litestar._asgi.asgi_router``, and ``litestar.routes``, which it needs."""
    hook(seam(module, "ASGIRouter"), "__call__", _report_answer)
    route = getattr(sys.modules.get("litestar.routes"), "HTTPRoute", None)
    if hasattr(route, _HANDLES):
        report_before(route, _HANDLES, "carrier = {1}\ntemplate = carrier['path_template']\n{report}")


class _Answer:
    """Takes the place of what is in the scope of a request while one router has it, to see what is reported inside a
    mount. ``path`` is the one that the router was called with.
    """

    __slots__ = ("_around", "_mounts", "_path", "_router", "_scope", "reported")
    #: As of a request in a mount: hooks leave all to ``route_known``.
    region = OVER

    def __init__(self, router: Any, scope: Any, mounts: Mounts) -> None:
        self._router, self._scope, self._mounts, self._path = router, scope, mounts, scope.get("path", "")
        self._around = scope[REPORT]
        self.reported = False

    def route_known(self, template: str) -> None:
        """Report what a handler of this router, or a router in a mount, has matched."""
        self.reported = True
        mount, application = self._mount()
        if application is not None:
            self._mounts.learn(application)
        self._around.route_known(mount + template if template else "")

    def report(self) -> None:
        """Report, as the answer begins, what was matched where nothing else did so; no error leaves."""
        self.reported = True
        with suppress(Exception):
            mount, application = self._mount()
            if application is None:
                self._around.route_known(self._scope.get("path_template", ""))
            else:
                self._around.route_known("" if self._mounts.lead_to_router(application) else mount)

    def forget_scope(self) -> None:
        """Let go of the scope, which refers to this object: a cycle would wait for the collector of garbage."""
        self._scope = {}

    def _mount(self) -> tuple[str, Any]:
        """Return the path of the mount that was matched, and what it calls, if it was one; its template in the scope is
        that of the path ``/`` (Litestar 2.25).
        """
        handler = self._scope.get("route_handler")
        if handler is None or not getattr(handler, "is_mount", False):
            return "", None
        paths = [
            path
            for path, node in self._router._mount_routes.items()  # noqa: SLF001 - Litestar shows them nowhere else
            if any(each.handler is handler for each in node.asgi_handlers.values())
        ]
        return max((path for path in paths if path in self._path), key=len, default=""), handler.fn


def _report_answer(call: Callable[..., Any]) -> Callable[..., Any]:
    mounts = Mounts()

    async def call_router(router: Any, scope: Any, receive: Any, send: Any) -> None:
        if REPORT not in scope:
            await call(router, scope, receive, send)
            return
        scope[REPORT] = answer = _Answer(router, scope, mounts)

        async def report_and_send(message: Any) -> None:
            if not answer.reported:
                answer.report()
            await send(message)

        try:
            await call(router, scope, receive, report_and_send)
        finally:
            if not answer.reported:
                answer.report()
            answer.forget_scope()

    return call_router
