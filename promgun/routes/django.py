"""Django (4.2 to 6.1), under WSGI and ASGI: ``BaseHandler.resolve_request``, through which Django REST framework's
requests go as well.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import Slashed, report_after, seam


def install(module: Any) -> None:
    """Hook ``django.core.handlers.base``."""
    # An attribute "scope" of a WSGI request is the application's.
    report_after(
        seam(module, "BaseHandler"),
        "resolve_request",
        "({1}.environ if hasattr({1}, 'environ') else {1}.scope)"
        "[REPORT].route_known(slashed[result.route] if result is not None else '')",
        slashed=Slashed(),
    )
