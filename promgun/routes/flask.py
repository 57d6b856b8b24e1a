"""Flask (2.2 to 3.1) and Quart (0.18 to 0.23): the rule that ``match_request`` of their contexts found, which is known
before any of the application's functions runs. The signal ``request_started`` has it as well, and costs a request 3 µs
more.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.reporting import report_after, seam

#: There is no rule after a 404, a 405 and a redirect to the path with a slash.
_REPORT = """\
matched = {{0}}.{request}
carrier = matched.{carrier}
matched = matched.url_rule
template = matched.rule if matched is not None else ""
{{report}}
"""


def install(module: Any) -> None:
    """Hook ``flask.ctx`` or ``quart.ctx``."""
    if module.__name__ == "quart.ctx":
        # From 0.23 on there is one context, of the application.
        old = getattr(module, "_BaseRequestWebsocketContext", None)
        owner, request = (
            (old, "request_websocket") if old is not None else (seam(module, "AppContext"), "_request_websocket")
        )
        report_after(owner, "match_request", _REPORT.format(request=request, carrier="scope"))
        return
    # From 3.2 on the context of a request is an AppContext.
    owners = {getattr(module, name, None) for name in ("RequestContext", "AppContext")}
    found = [owner for owner in owners if isinstance(owner, type) and hasattr(owner, "match_request")]
    for owner in found or [seam(module, "RequestContext")]:
        report_after(owner, "match_request", _REPORT.format(request="request", carrier="environ"))
