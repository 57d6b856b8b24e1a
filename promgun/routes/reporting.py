"""The keys by which a hook finds its request, and the one way to hook a framework's class."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, MutableMapping
from textwrap import indent
from typing import Any

#: The application's own name of the route, a string.
ROUTE = "promgun.route"
#: What a request is known by while it runs: its method ``route_known`` takes the route.
REPORT = "promgun.report_route"
#: The templates of the mounts that the request has entered, joined.
MOUNTS = "promgun.mounts"

#: The environ of a WSGI request or the scope of an ASGI request.
Carrier = MutableMapping[str, Any]
#: The carrier of a request, and the template of what a router matched, in the framework's own words; empty if nothing
#: matched.
Match = tuple[Carrier, str]
#: Reads a match, ``None`` where there is nothing to report, from what a hooked method is called with.
ReadMatch = Callable[..., Match | None]

# Every hook is made of this text: here a route is reported, and here an error of a hook ends, so that the request goes
# on, without a route. As text it gets the parameters of the method that it replaces, which may be called by keywords,
# and costs a request one frame; a function of *args costs two (CPython 3.11).
_REPORT = """\
try:
    match = read({arguments})
    if match is not None:
        carrier, template = match
        if REPORT in carrier:
            if template and MOUNTS in carrier:
                template = carrier[MOUNTS] + template
            carrier[REPORT].route_known(template)
except Exception:
    pass
"""
_BEFORE = f"""\
def bind(method, read):
    {{define}} hooked({{parameters}}):
{indent(_REPORT, " " * 8)}
        return {{call}}
    return hooked
"""
_AFTER = f"""\
def bind(method, read):
    {{define}} hooked({{parameters}}):
        result = None
        try:
            result = {{call}}
        finally:
{indent(_REPORT, " " * 12)}
        return result
    return hooked
"""
_RESERVED = frozenset({"method", "read", "result", "match", "carrier", "template"})


class MissingSeamError(Exception):
    """The installed version of a framework lacks what a hook needs; the text is the dotted name of it."""


def report_before(owner: Any, name: str, read: ReadMatch) -> None:
    """Hook the method ``name`` of a class: what ``read(self, argument)`` finds is reported before each call. Raises
    :class:`MissingSeamError` if the class has no such method. ``owner`` may be a module, for one of its functions.
    """
    hook(owner, name, lambda method: _made_of(_BEFORE, method, read))


def report_after(owner: Any, name: str, read: ReadMatch) -> None:
    """Hook the method ``name`` of a class: what ``read(result, self, argument)`` finds is reported after each call; the
    result of a call that raised is ``None``. Raises :class:`MissingSeamError` if the class has no such method.
    ``owner`` may be a module, for one of its functions.
    """
    hook(owner, name, lambda method: _made_of(_AFTER, method, read))


def hook(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the method ``name`` of the class ``owner`` by ``wrap(method)``, unless a hook of ours is there already.

    Raises :class:`MissingSeamError` if the class has no such method.
    """
    method = getattr(owner, name, None)
    if method is None:
        raise MissingSeamError(f"{_dotted(owner)}.{name}")
    if getattr(method, "hooked_by_promgun", False):
        return
    hooked = functools.update_wrapper(wrap(method), method)
    hooked.hooked_by_promgun = True  # type: ignore[attr-defined] # recognised at the next installation
    setattr(owner, name, hooked)


def guarded(read: ReadMatch) -> Callable[[Any, Any], None]:
    """Return a function of two arguments that reports what ``read`` finds by them."""
    return _made_of(_BEFORE, lambda first, second: None, read)  # noqa: ARG005 - nothing to be called


def _made_of(source: str, method: Callable[..., Any], read: ReadMatch) -> Callable[..., Any]:
    """Return ``method`` with a report; ``read`` gets its first two arguments, or its only one."""
    declared = inspect.signature(method).parameters
    names = list(declared)
    arguments = names[:2]
    if _RESERVED & declared.keys() or any(
        parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.default is not parameter.empty
        for parameter in declared.values()
    ):
        names, arguments = ["*given", "**named"], ["*given[:2]"]
    if source is _AFTER:
        arguments.insert(0, "result")
    # Servers tell ASGI 3 from ASGI 2 by whether __call__ is a coroutine function; nobody asks that of another method.
    is_async = method.__name__ == "__call__" and inspect.iscoroutinefunction(method)
    filled = source.format(
        define="async def" if is_async else "def",
        parameters=", ".join(names),
        arguments=", ".join(arguments),
        call=f"{'await ' if is_async else ''}method({', '.join(names)})",
    )
    made: dict[str, Any] = {"__name__": __name__, "REPORT": REPORT, "MOUNTS": MOUNTS}
    exec(filled, made)  # noqa: S102 - the text above, with names of parameters
    hooked: Callable[..., Any] = made["bind"](method, read)
    return hooked


class Slashed(dict[str, str]):
    """Templates of a framework that writes paths without the leading slash, each with it; regular expressions that
    begin with ``^`` stay as they are.
    """

    #: A framework may make up templates as it goes.
    _REMEMBERED = 10_000

    def __missing__(self, path: str) -> str:
        """Remember a path."""
        if len(self) >= self._REMEMBERED:
            self.clear()
        self[path] = template = path if path[:1] in {"/", "^"} else "/" + path
        return template


def seam(module: Any, name: str) -> Any:
    """Return an attribute of a framework's module; raises :class:`MissingSeamError` if there is none."""
    found = getattr(module, name, None)
    if found is None:
        raise MissingSeamError(f"{module.__name__}.{name}")
    return found


def _dotted(owner: Any) -> str:
    return f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else str(owner.__name__)
