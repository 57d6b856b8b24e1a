"""Quart (0.18 to 0.22): the rule that the ``match_request`` of its contexts found, for requests and websockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.routes.reporting import hook, report, seam


def install(module: Any) -> None:
    """Hook ``quart.ctx``."""
    hook(seam(module, "_BaseRequestWebsocketContext"), "match_request", _report_match)


def _report_match(match_request: Callable[..., Any]) -> Callable[..., Any]:
    def match_and_report(context: Any) -> Any:
        result = match_request(context)
        try:
            request = context.request_websocket
            rule = request.url_rule
            report(request.scope, rule.rule if rule is not None else "")
        except Exception:  # noqa: BLE001, S110 - the request goes on, without a route
            pass
        return result

    return match_and_report
