"""Falcon (3.1 to 4.4), under WSGI and ASGI: ``App._get_responder``, which also answers a short cut of a middleware's
not: such a request has no route. Sinks and static routes have no template of Falcon's: it is their prefix.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import report_after, seam


def install(module: Any) -> None:
    """Hook ``falcon.app``."""
    # A 404 has the template None as well.
    report_after(
        seam(module, "App"),
        "_get_responder",
        "carrier = {1}.scope if {0}._ASGI else {1}.env\n"
        "template = result[3] or prefix({0}, result[0], {1}.path)\n"
        "{report}",
        prefix=_prefix,
    )


def _prefix(app: Any, responder: Any, path: str) -> str:
    """Return the prefix of the sink or static route that is ``responder``, empty if it is neither; one function may be
    the sink of several prefixes.
    """
    for matcher, responds, is_sink in app._sink_and_static_routes:  # noqa: SLF001 - Falcon shows them nowhere else
        if responds is responder and matcher.match(path):
            text: str = matcher.pattern if is_sink else matcher._prefix  # noqa: SLF001 - same
            return text
    return ""
