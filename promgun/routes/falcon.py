"""Falcon (3.1 to 4.4), under WSGI and ASGI: ``App._get_responder``, which also answers a short cut of a middleware's
not: such a request has no route. Sinks and static routes have no template of Falcon's: it is their prefix.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import Match, report_after, seam


def install(module: Any) -> None:
    """Hook ``falcon.app``."""
    report_after(seam(module, "App"), "_get_responder", _read)


def _read(found: Any, app: Any, req: Any) -> Match:
    template = found[3]
    if template is None:
        template = _prefix(app, found[0], req.path)
    return req.env if hasattr(req, "env") else req.scope, template


def _prefix(app: Any, responder: Any, path: str) -> str:
    """Return the prefix of the sink or static route that is ``responder``, empty if it is neither; one function may be
    the sink of several prefixes.
    """
    for matcher, responds, is_sink in app._sink_and_static_routes:  # noqa: SLF001 - Falcon shows them nowhere else
        if responds is responder and matcher.match(path):
            text: str = matcher.pattern if is_sink else matcher._prefix  # noqa: SLF001 - same
            return text
    return ""
