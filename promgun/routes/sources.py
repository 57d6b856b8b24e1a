"""The table of frameworks, and what a worker process uses of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promgun.routes.patterns import RoutePatterns


#: The application's own name of the route, a string.
ROUTE = "promgun.route"
#: Where the route of a carrier is reported: its method ``route_known`` takes the template.
REPORT = "promgun.report_route"


class MissingSeamError(Exception):
    """The installed version of a framework lacks what a hook needs; the text is the dotted name of it."""


#: A framework: its name as people write it, and the module here that hooks it.
Framework = tuple[str, str]
#: By the module of the framework that has the hooked class. It is looked up in ``sys.modules`` and never imported.
FRAMEWORKS: Mapping[str, Framework] = {
    "a2wsgi.wsgi": ("an application of WSGI in a2wsgi", "promgun.routes.bridges"),
    "asgiref.wsgi": ("an application of WSGI in asgiref", "promgun.routes.bridges"),
    "bottle": ("Bottle", "promgun.routes.bottle"),
    "django.core.handlers.base": ("Django", "promgun.routes.django"),
    "falcon.app": ("Falcon", "promgun.routes.falcon"),
    "fastapi.routing": ("FastAPI", "promgun.routes.fastapi"),
    "flask.ctx": ("Flask", "promgun.routes.flask"),
    "litestar._asgi.asgi_router": ("Litestar", "promgun.routes.litestar"),
    "pyramid.router": ("Pyramid", "promgun.routes.pyramid"),
    "pyramid.urldispatch": ("Pyramid", "promgun.routes.pyramid"),
    "quart.ctx": ("Quart", "promgun.routes.flask"),
    "starlette.middleware.wsgi": ("an application of WSGI in Starlette", "promgun.routes.bridges"),
    "starlette.routing": ("Starlette", "promgun.routes.starlette"),
    "werkzeug.middleware.dispatcher": ("Werkzeug's dispatcher", "promgun.routes.werkzeug"),
}


def load_ahead() -> None:
    """Import all hooks, for a process that may lose the right to read this package."""
    for _, hooks in FRAMEWORKS.values():
        import_module(hooks)


class RouteSources:
    """What can name the routes of a process's requests: the frameworks that it has loaded, and ``--metrics-route``.

    ``active`` tells whether there is anything. ``warn`` gets a line about each framework that cannot be hooked.
    """

    __slots__ = ("_looked_at", "_seen", "_warn", "active", "patterns")

    def __init__(self, patterns: RoutePatterns | None = None, warn: Callable[..., Any] = lambda *_: None) -> None:
        self.patterns = patterns
        self.active = patterns is not None
        self._warn = warn
        self._seen: set[str] = set()
        self._looked_at = 0

    def install(self, modules: Mapping[str, ModuleType] | None = None) -> None:
        """Hook the frameworks that were loaded since the last call; ``modules`` are those of this process."""
        modules = sys.modules if modules is None else modules
        if len(modules) == self._looked_at:
            return
        self._looked_at = len(modules)
        for name, framework in FRAMEWORKS.items():
            module = modules.get(name)
            if module is None or name in self._seen:
                continue
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                # Another thread is importing it.
                self._looked_at = 0
                continue
            self._seen.add(name)
            self._install(module, framework)

    def _install(self, module: ModuleType, framework: Framework) -> None:
        title, hooks = framework
        try:
            import_module(hooks).install(module)
        except MissingSeamError as missing:
            self._warn(
                "Requests have no route where %s matches them: the installed version has no %s. "
                "Name routes by --metrics-route or environ['promgun.route']",
                title,
                missing,
            )
        except Exception as error:  # noqa: BLE001 - a framework must not keep the worker from serving
            self._warn("Requests have no route where %s matches them: %r", title, error)
        else:
            self.active = True
