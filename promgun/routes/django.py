"""Django (4.2 to 5.2), under WSGI and ASGI: ``BaseHandler.resolve_request``, through which Django REST framework's
requests go as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.routes.reporting import hook, report, seam, with_slash


def install(module: Any) -> None:
    """Hook ``django.core.handlers.base``."""
    hook(seam(module, "BaseHandler"), "resolve_request", _report_match)


def _report_match(resolve_request: Callable[..., Any]) -> Callable[..., Any]:
    def resolve_and_report(handler: Any, request: Any) -> Any:
        try:
            result = resolve_request(handler, request)
        except BaseException:
            _report(request, matched=False)
            raise
        _report(request, matched=True)
        return result

    return resolve_and_report


def _report(request: Any, *, matched: bool) -> None:
    try:
        route = request.resolver_match.route if matched else None
        # An attribute "scope" of a WSGI request is the application's.
        carrier = request.environ if hasattr(request, "environ") else request.scope
        report(carrier, with_slash(route) if route is not None else "")
    except Exception:  # noqa: BLE001, S110 - the request goes on, without a route
        pass
