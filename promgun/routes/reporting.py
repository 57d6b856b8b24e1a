"""The one way to hook a framework's class, so that it reports the route of a request."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from textwrap import indent
from typing import Any

from promgun.routes.sources import REPORT, MissingSeamError
from promgun.store.request_table import ROUTE_MARK

#: The environ of a WSGI request or the scope of an ASGI request.
Carrier = MutableMapping[str, Any]

# Every hook is made of these texts: so it has the parameters of the method that it replaces, which may be called by
# keywords, and costs a request no other call. Here an error of a hook ends, and the request goes on, without a route. A
# carrier without REPORT, such as that of a test client, is a KeyError.
_BEFORE = """\
def bind(method):
    {define} hooked({parameters}):
        try:
{report}
        except Exception:
            pass
        return {call}
    return hooked
"""
_AFTER = """\
def bind(method):
    {define} hooked({parameters}):
        try:
            result = {call}
        except BaseException:
            result = None
            try:
{report_failed}
            except Exception:
                pass
            raise
        try:
{report}
        except Exception:
            pass
        return result
    return hooked
"""
#: Reports ``template`` to ``carrier``.
_CALL = f"carrier[{REPORT!r}].route_known(template)"
# RequestState.route_known, written out for a request that has no route yet, whose region is in the table of running
# requests: a call less.
_WRITE = f"""\
known = carrier[{REPORT!r}]
region = known.region
if region < 0 or known.route or known.recorded:
    known.route_known(template)
elif template:
    table = known.table
    try:
        write, start, data = table.places[template]
    except KeyError:
        known.route_known(template)
    else:
        known.route = template
        write(table.cells, region * 8 + start, data, {ROUTE_MARK})
"""
#: The local variables of a hook.
_LOCALS = frozenset(("method", "result", "carrier", "template", "matched", "known", "region", "table", "write", "start",
                     "data"))  # fmt: skip


def report_before(owner: Any, name: str, report: str, /, **names: Any) -> None:
    """Hook the method ``name`` of a class: the statements ``report`` are executed before each call.

    In them ``{0}`` and ``{1}`` stand for the first two arguments, of which the first is the instance. ``matched`` is a
    variable of theirs, ``names`` are what else they use. Those that set ``carrier`` and ``template`` are followed by
    the line ``{report}``, which reports this template to ``carrier[REPORT]``. Raises :class:`MissingSeamError` if the
    class has no such method. ``owner`` may be a module, for one of its functions.
    """
    hook(owner, name, lambda method: _made_of(_BEFORE, method, report, names))


def report_after(owner: Any, name: str, report: str, /, **names: Any) -> None:
    """Hook a method as :func:`report_before` does, but ``report`` is executed after each call. It may use ``result``,
    what the call returned, ``None`` if it raised.
    """
    hook(owner, name, lambda method: _made_of(_AFTER, method, report, names))


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


def _made_of(source: str, method: Callable[..., Any], report: str, names: Mapping[str, Any]) -> Callable[..., Any]:
    """Return ``method`` with the statements ``report``."""
    declared = inspect.signature(method).parameters
    parameters = list(declared)
    arguments = parameters[:2]
    if (_LOCALS | names.keys()) & declared.keys() or any(
        parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.default is not parameter.empty
        for parameter in declared.values()
    ):
        parameters, arguments = ["*given", "**named"], ["given[0]", "given[1]"]
    # Servers tell ASGI 3 from ASGI 2 by whether __call__ is a coroutine function; nobody asks that of another method.
    is_async = method.__name__ == "__call__" and inspect.iscoroutinefunction(method)
    filled = source.format(
        define="async def" if is_async else "def",
        parameters=", ".join(parameters),
        report=_statements(report, arguments, _WRITE),
        report_failed=_statements(report, arguments, _CALL),
        call=f"{'await ' if is_async else ''}method({', '.join(parameters)})",
    )
    made: dict[str, Any] = {"__name__": __name__, "REPORT": REPORT, **names}
    exec(filled, made)  # noqa: S102 - the text above, with names of parameters
    hooked: Callable[..., Any] = made["bind"](method)
    return hooked


def _statements(report: str, arguments: Sequence[str], how: str) -> str:
    """Return the lines of ``report`` as they stand in a hook, which reports in the way that ``how`` says."""
    lines = []
    for line in report.splitlines():
        statement = line.lstrip()
        written = how if statement == "{report}" else statement.format(*arguments)
        lines.append(indent(written, " " * (16 + len(line) - len(statement))))
    return "\n".join(lines)


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
