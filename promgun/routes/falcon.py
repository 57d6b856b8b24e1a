"""Falcon (3.1 to 4.4), under WSGI and ASGI: ``App._get_responder``, which also answers a short cut of a middleware's
not: such a request has no route. Sinks and static routes have no template of Falcon's: it is their prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.routes.reporting import hook, report, seam


def install(module: Any) -> None:
    """Hook ``falcon.app``."""
    hook(seam(module, "App"), "_get_responder", _report_match)


def _report_match(get_responder: Callable[..., Any]) -> Callable[..., Any]:
    def get_and_report(app: Any, req: Any) -> Any:
        found = get_responder(app, req)
        try:
            template = found[3]
            if template is None:
                template = _prefix(app, found[0], req.path)
            carrier = req.env if hasattr(req, "env") else req.scope
            report(carrier, template)
        except Exception:  # noqa: BLE001, S110 - the request goes on, without a route
            pass
        return found

    return get_and_report


def _prefix(app: Any, responder: Any, path: str) -> str:
    """Return the prefix of the sink or static route that is ``responder``, empty if it is neither; one function may be
    the sink of several prefixes.
    """
    for matcher, responds, is_sink in app._sink_and_static_routes:  # noqa: SLF001 - Falcon shows them nowhere else
        if responds is responder and matcher.match(path):
            text: str = matcher.pattern if is_sink else matcher._prefix  # noqa: SLF001 - same
            return text
    return ""
