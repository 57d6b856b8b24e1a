"""The ways to name an application: an attribute, a factory, one with arguments, the module alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

NUMBER = 42


def application(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the name under which it is found when none is given."""
    start_response("200 OK", [("Content-Length", "11")])
    return [b"application"]


def create_app(greeting: str = "factory") -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """Return an application that answers with the greeting."""

    def greet(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(len(greeting)))])
        return [greeting.encode()]

    return greet
