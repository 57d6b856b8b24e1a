"""The keys by which a hook finds its request, and the ways to report a route and to hook a framework's class."""

from __future__ import annotations

import functools
from collections.abc import Callable, MutableMapping
from typing import Any

#: The application's own name of the route, a string.
ROUTE = "promgun.route"
#: What a request is known by while it runs: its method ``route_known`` takes the route.
REPORT = "promgun.report_route"
#: The templates of the mounts that the request has entered, joined.
MOUNTS = "promgun.mounts"

#: What the application objects of Flask, Django, Falcon, Pyramid and Bottle have, and other WSGI applications have not.
_ROUTER_ATTRIBUTES = ("url_map", "resolve_request", "add_sink", "routes_mapper", "router")

#: The environ of a WSGI request or the scope of an ASGI request.
Carrier = MutableMapping[str, Any]


class MissingSeamError(Exception):
    """The installed version of a framework lacks what a hook needs; the text is the dotted name of it."""


def report(carrier: Carrier, template: str) -> None:
    """Report what a router matched, in the framework's own words; an empty ``template`` says that nothing matched."""
    if REPORT in carrier:
        if template and MOUNTS in carrier:
            template = carrier[MOUNTS] + template
        carrier[REPORT].route_known(template)


def enter_mount(carrier: Carrier, template: str) -> None:
    """Report that the request goes on in what is mounted at ``template``, which may have no router of its own."""
    known = carrier.get(REPORT)
    if known is not None:
        carrier[MOUNTS] = mounts = carrier.get(MOUNTS, "") + template
        known.route_known(mounts)


def enter_router(carrier: Carrier, application: Any) -> None:
    """Report that a request in a mount has no route yet, if ``application``, which gets it, will match it itself."""
    if MOUNTS in carrier and any(hasattr(application, name) for name in _ROUTER_ATTRIBUTES):
        report(carrier, "")


def with_slash(path: str) -> str:
    """Return the template of a framework that writes paths without the leading slash; regular expressions that begin
    with ``^`` stay as they are.
    """
    return path if path[:1] in {"/", "^"} else "/" + path


def hook(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the method ``name`` of the class ``owner`` by ``wrap(method)``, unless a hook of ours is there already.

    Raises :class:`MissingSeamError` if the class has no such method.
    """
    method = getattr(owner, name, None)
    if method is None:
        raise MissingSeamError(f"{owner.__module__}.{owner.__qualname__}.{name}")
    if getattr(method, "hooked_by_promgun", False):
        return
    hooked = functools.update_wrapper(wrap(method), method)
    hooked.hooked_by_promgun = True  # type: ignore[attr-defined] # recognised at the next installation
    setattr(owner, name, hooked)


def seam(module: Any, name: str) -> Any:
    """Return an attribute of a framework's module; raises :class:`MissingSeamError` if there is none."""
    found = getattr(module, name, None)
    if found is None:
        raise MissingSeamError(f"{module.__name__}.{name}")
    return found
