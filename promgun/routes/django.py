"""Django (4.2 to 6.1), under WSGI and ASGI: ``BaseHandler.resolve_request``, through which Django REST framework's
requests go as well.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import Slashed, report_after, seam

#: An attribute ``scope`` of a WSGI request is the application's.
_REPORT = """\
try:
    carrier = {1}.environ
except AttributeError:
    carrier = {1}.scope
template = slashed[result.route] if result is not None else ""
{report}
"""


def install(module: Any) -> None:
    """Hook ``django.core.handlers.base``."""
    report_after(
        seam(module, "BaseHandler"),
        "resolve_request",
        _REPORT,
        slashed=Slashed(),
    )
