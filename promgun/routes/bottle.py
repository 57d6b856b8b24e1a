"""Bottle (0.12 and 0.13): ``Router.match``.

An application that was mounted as a WSGI callable is a route with the key ``mountpoint`` in its configuration and a
rule that ends with a wildcard, ``/m/<:re:.*>``: its template is the prefix alone.

The rule of any other route is the one that its router was given. ``Route.rule`` is not: ``mount`` writes the prefix
into the routes of the application that it mounts, which may be mounted a second time, or serve by itself.
"""

from __future__ import annotations

from typing import Any

from promgun.routes.mounts import Mounts
from promgun.routes.reporting import report_after, seam
from promgun.routes.sources import REPORT

# A router has its rules once the first of its routes has matched.
_REPORT = """\
carrier = {1}
if result is not None:
    try:
        template = {0}.promgun_rules[result[0]]
    except (AttributeError, KeyError):
        report({0}, result[0], carrier)
    else:
        {report}
else:
    template = ""
    {report}
"""


def install(module: Any) -> None:
    """Hook ``bottle``."""
    mounts = Mounts()

    def report(router: Any, route: Any, environ: Any) -> None:
        prefix = route.config.get("mountpoint.prefix")
        if prefix is not None:
            mounts.enter(environ, "/" + prefix.strip("/"), route.config.get("mountpoint.target"))
            return
        rules = vars(router).setdefault("promgun_rules", {})
        if len(rules) >= _REMEMBERED:
            rules.clear()
        rules[route] = rule = _rule_in(router, route)
        environ[REPORT].route_known(rule)

    report_after(seam(module, "Router"), "match", _REPORT, report=report)


#: An application may make routes as it goes.
_REMEMBERED = 10_000


def _rule_in(router: Any, route: Any) -> str:
    """Return the rule by which ``router`` knows ``route``."""
    rule: str = route.rule
    for rules in router.dyna_routes.values():
        for known, _pattern, target, _arguments in rules:
            if target is route:
                rule = known
    for paths in router.static.values():
        for path, (target, _arguments) in paths.items():
            if target is route:
                rule = path
    return rule
