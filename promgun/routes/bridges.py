"""Applications of WSGI that are called by one of ASGI: Starlette's ``WSGIMiddleware`` (0.27 to 1.10), a2wsgi (1.10) and
asgiref's ``WsgiToAsgi`` (3.6 to 3.13). They make an environ of a scope: it belongs to the same request.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import MOUNTS, REPORT, Carrier, report_after, report_before, seam


def install(module: Any) -> None:
    """Hook ``starlette.middleware.wsgi``, ``a2wsgi.wsgi`` or ``asgiref.wsgi``."""
    if module.__name__ == "starlette.middleware.wsgi":
        report_before(seam(module, "WSGIResponder"), "wsgi", lambda responder, environ: _join(responder.scope, environ))
    elif module.__name__ == "a2wsgi.wsgi":
        report_after(module, "build_environ", lambda environ, scope, _body: _join(scope, environ))
    else:
        owner = seam(module, "WsgiToAsgiInstance")
        report_after(owner, "build_environ", lambda environ, _instance, scope: _join(scope, environ))


def _join(scope: Carrier, environ: Carrier) -> None:
    for key in (REPORT, MOUNTS):
        if key in scope:
            environ[key] = scope[key]
