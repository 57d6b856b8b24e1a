"""Applications of WSGI that are called by one of ASGI: Starlette's ``WSGIMiddleware`` (0.27 to 1.10), a2wsgi (1.10) and
asgiref's ``WsgiToAsgi`` (3.6 to 3.13). They make an environ of a scope: it belongs to the same request.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import report_after, report_before, seam

_JOIN = "{1}[REPORT] = {0}[REPORT]"


def install(module: Any) -> None:
    """Hook ``starlette.middleware.wsgi``, ``a2wsgi.wsgi`` or ``asgiref.wsgi``."""
    if module.__name__ == "starlette.middleware.wsgi":
        report_before(seam(module, "WSGIResponder"), "wsgi", _JOIN.format("{0}.scope", "{1}"))
    elif module.__name__ == "a2wsgi.wsgi":
        report_after(module, "build_environ", _JOIN.format("{0}", "result"))
    else:
        owner = seam(module, "WsgiToAsgiInstance")
        report_after(owner, "build_environ", _JOIN.format("{1}", "result"))
