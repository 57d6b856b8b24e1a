"""What a request says that fails because its application is of the other kind, WSGI or ASGI."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from promgun.workers import _application_kind
from promgun.workers._application_kind import Seen, seen_by_asgi, seen_by_wsgi


async def asgi(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})


async def asgi_of(_name: str, scope: Any, receive: Any, send: Any) -> None:
    await asgi(scope, receive, send)


def gives_coroutine(scope: Any, receive: Any, send: Any) -> Any:
    return asgi(scope, receive, send)


def passes_to_asgi(*args: Any) -> Any:
    return asgi(*args)


async def takes_all(*_args: Any) -> None: ...


def passes_to_all(*args: Any) -> Any:
    return takes_all(*args)


class AsgiClass:
    """Made without arguments, an instance is an ASGI application."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""


class OldAsgi:
    """An application of ASGI 2."""

    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None:
        """Answer."""


def factory() -> Any:
    return asgi


def wsgi(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return []


def wsgi_of(_name: str, environ: Any, start_response: Any) -> list[bytes]:
    return wsgi(environ, start_response)


def passes_to_wsgi(*args: Any) -> list[bytes]:
    return wsgi(*args)


def with_default(environ: Any, start_response: Any, _name: str = "") -> list[bytes]:
    start_response(environ["REQUEST_METHOD"], [])
    return []


def starts_at_once(_environ: Any, start_response: Any, _name: str = "") -> list[bytes]:
    start_response("200 OK", [])
    return []


def only_body(*_: Any) -> list[bytes]:
    return []


class WsgiClass:
    """The form of PEP 3333 that is a class."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...


def mistaken(*_: Any) -> Any:
    """Fail as code of the application does that calls something else wrongly."""
    return int.bit_length(1, 2)  # type: ignore[call-arg] # meant


async def mistaken_asgi(*_: Any) -> None:
    mistaken()


async def looks_up(*_: Any) -> None:
    names: dict[str, str] = {}
    names["REQUEST_METHOD"]


def forgets_await(_scope: Any, _receive: Any, _send: Any) -> None: ...


def raised(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - what it is is asked
        return error
    raise AssertionError


def by_wsgi(application: Any) -> BaseException:
    def call() -> None:
        answer = application({}, lambda *_: None)
        with suppress(AttributeError):
            answer.close()
        list(answer)

    return raised(call)


def by_asgi(application: Any) -> BaseException:
    async def receive() -> Any: ...

    async def send(_message: Any) -> None: ...

    async def call() -> None:
        await application({"type": "http"}, receive, send)

    return raised(lambda: asyncio.run(call()))


def by_asgi_2(application: Any) -> BaseException:
    async def call() -> None:
        instance = application({"type": "http"})
        with suppress(AttributeError):
            instance.close()
        await instance(None, None)

    return raised(lambda: asyncio.run(call()))


SAYINGS = [
    (by_wsgi, gives_coroutine, Seen.ASGI),
    (by_wsgi, functools.partial(asgi_of, ""), Seen.ASGI),
    (by_wsgi, passes_to_asgi, Seen.ASGI),
    (by_wsgi, passes_to_all, Seen.ASGI),
    (by_wsgi, OldAsgi, Seen.ASGI),
    (by_wsgi, factory, Seen.FACTORY),
    (by_wsgi, AsgiClass, Seen.FACTORY),
    (by_wsgi, mistaken, None),
    (by_asgi, functools.partial(wsgi_of, ""), Seen.WSGI),
    (by_asgi, passes_to_wsgi, Seen.WSGI),
    (by_asgi, with_default, Seen.WSGI),
    (by_asgi, starts_at_once, Seen.WSGI),
    (by_asgi, only_body, Seen.WSGI),
    (by_asgi, WsgiClass, Seen.WSGI),
    (by_asgi, OldAsgi, Seen.ASGI_2),
    (by_asgi, factory, Seen.FACTORY),
    (by_asgi, AsgiClass, Seen.FACTORY),
    (by_asgi, mistaken, None),
    (by_asgi, mistaken_asgi, None),
    (by_asgi, looks_up, None),
    (by_asgi, forgets_await, None),
    (by_asgi_2, functools.partial(wsgi_of, ""), Seen.WSGI),
    (by_asgi_2, passes_to_wsgi, Seen.WSGI),
    (by_asgi_2, only_body, Seen.WSGI),
    (by_asgi_2, WsgiClass, Seen.WSGI),
    (by_asgi_2, gives_coroutine, Seen.ASGI_3),
    (by_asgi_2, functools.partial(asgi_of, ""), Seen.ASGI_3),
    (by_asgi_2, passes_to_asgi, Seen.ASGI_3),
    (by_asgi_2, passes_to_all, Seen.ASGI_3),
    (by_asgi_2, mistaken, None),
]


def test_the_failure_of_a_call_says_what_the_application_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's own code calls the application here: this module stands for it, whose applications are elsewhere."""
    found = []
    for called, application, expected in SAYINGS:
        error = called(application)
        innermost = error.__traceback__
        while innermost is not None and innermost.tb_next is not None:
            innermost = innermost.tb_next
        assert innermost is not None
        in_a_call = innermost.tb_frame.f_code.co_name == "call"
        servers = frozenset({"tests"} if in_a_call else {"gunicorn"})
        monkeypatch.setattr(_application_kind, "_SERVERS", servers)
        seen = (seen_by_wsgi if called is by_wsgi else seen_by_asgi)(application, error)
        if seen != expected:
            found.append((called.__name__, application, error, seen, expected))
    assert found == []
