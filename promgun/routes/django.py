"""Django (4.2 to 5.2), under WSGI and ASGI: ``BaseHandler.resolve_request``, through which Django REST framework's
requests go as well.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import Match, Slashed, report_after, seam


def install(module: Any) -> None:
    """Hook ``django.core.handlers.base``."""
    slashed = Slashed()

    def read(found: Any, _handler: Any, request: Any) -> Match:
        # An attribute "scope" of a WSGI request is the application's.
        carrier = request.environ if hasattr(request, "environ") else request.scope
        return carrier, slashed[found.route] if found is not None else ""

    report_after(seam(module, "BaseHandler"), "resolve_request", read)
