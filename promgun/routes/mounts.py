"""Mounts: an application in another one, which may have a router of its own, whatever is wrapped around it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from promgun.routes.reporting import Carrier
from promgun.routes.sources import REPORT
from promgun.store.request_table import OVER

#: What the application objects of frameworks have, and other WSGI and ASGI applications have not: Flask and Quart,
#: Django, Falcon, Pyramid, Bottle, Starlette and FastAPI, Litestar.
_ROUTERS = ("url_map", "resolve_request", "add_sink", "routes_mapper", "router", "routes", "asgi_router")
#: By which names middleware and other wrappers know the application in them.
_INNER = ("app", "application", "wsgi", "wsgi_app", "asgi", "_app", "_application", "__self__", "__wrapped__", "func")
#: How many applications are looked at, from the mounted one inwards.
_MOST = 16
#: An application may make the applications that it mounts as it goes.
_REMEMBERED = 1_000


class MountedRequest:
    """Takes the place of ``request`` in the carrier of a request that has entered mounts: reports routes with the
    templates of these, ``mounts``, in front. Calls ``learn`` when a router inside reports.
    """

    __slots__ = ("learn", "mounts", "request")
    #: What hooks ask a state before they write a route by themselves: here they must not.
    region = OVER
    learn: Callable[[], None]
    mounts: str
    request: Any

    def __init__(self, around: Any, template: str, learn: Callable[[], None]) -> None:
        """``around`` is what was in the carrier: the state of a request, or another mount's."""
        if isinstance(around, MountedRequest):
            around.learn()
            self.request, self.mounts = around.request, around.mounts + template
        else:
            self.request, self.mounts = around, template
        self.learn = learn

    def route_known(self, template: str) -> None:
        """Report the route that has ``template`` inside the mounts, none if that is empty."""
        self.learn()
        self.request.route_known(self.mounts + template if template else "")


class Mounts:
    """Reports the mounts that requests enter, and remembers which of them lead to a router.

    One that no attribute and no closure leads to is learned when its router first reports something.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Callable[[], Any], bool]] = {}

    def enter(self, carrier: Carrier, template: str, application: Any) -> None:
        """Report that the request goes on in ``application``, which is mounted at ``template``.

        It has no route yet if a router is there that will match it, else the template is its route.
        """
        around = carrier.get(REPORT)
        if around is not None:
            has_router = self.lead_to_router(application)
            learn = _nothing if has_router else partial(self.learn, application)
            carrier[REPORT] = mounted = MountedRequest(around, template, learn)
            mounted.request.route_known("" if has_router else mounted.mounts)

    def lead_to_router(self, application: Any) -> bool:
        """Whether ``application`` has a router, or wraps one that has."""
        known = self._known.get(id(application))
        if known is not None and known[0]() is application:
            return known[1]
        found = any(_has_router(each) for each in _inwards(application))
        self._remember(application, has_router=found)
        return found

    def learn(self, application: Any) -> None:
        """Remember that ``application`` leads to a router, as one in it has reported."""
        self._remember(application, has_router=True)

    def _remember(self, application: Any, *, has_router: bool) -> None:
        reference: Callable[[], Any]
        try:
            reference = weakref.ref(application)
        except TypeError:
            # Such as an object with slots.
            def reference() -> Any:
                return application

        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[id(application)] = reference, has_router


def _nothing() -> None:
    """Nothing is to be learned."""


def _has_router(application: Any) -> bool:
    return any(hasattr(application, name) for name in _ROUTERS)


def _inwards(application: Any) -> Iterator[Any]:
    """Yield an application, and those that it wraps by an attribute of a usual name or as a closure."""
    found = [application]
    for each in found:
        yield each
        held = [getattr(each, name, None) for name in _INNER]
        for cell in getattr(each, "__closure__", None) or ():
            # A variable may be unbound.
            with suppress(ValueError):
                held.append(cell.cell_contents)
        found += [inner for inner in held if callable(inner) and not any(inner is old for old in found)]
        if len(found) > _MOST:
            return
