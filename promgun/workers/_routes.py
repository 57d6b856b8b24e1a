"""The sources of routes of a worker, as its configuration says."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from promgun.routes.sources import RouteSources

_VARIABLE = "PROMGUN_METRICS_ROUTE"


def route_sources(cfg: Any, warn: Callable[..., Any]) -> RouteSources:
    """Return what can name routes: frameworks that will be loaded, and the patterns of ``--metrics-route``, under plain
    Gunicorn those of its variable. ``warn`` gets a line for patterns and frameworks that cannot be used.
    """
    setting = cfg.settings.get("metrics_route")
    given = os.environ.get(_VARIABLE, "").split() if setting is None else setting.get()
    if not given:
        return RouteSources(None, warn)
    from promgun.routes.patterns import RoutePatterns, read_patterns  # noqa: PLC0415 - most servers have no pattern

    try:
        patterns = read_patterns(given)
    except ValueError as error:
        warn("The variable %s is not used: %s", _VARIABLE, error)
        patterns = ()
    return RouteSources(RoutePatterns(patterns) if patterns else None, warn)
