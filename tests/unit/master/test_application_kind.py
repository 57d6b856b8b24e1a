"""An application of the wrong kind is refused where there is no doubt, and only there."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.workers.sync import SyncWorker

from promgun.master.application_kind import check_kind, is_certainly_asgi, is_certainly_wsgi
from promgun.master.load_errors import ApplicationRefusedError


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application."""


def wsgi(_environ: Any, _start_response: Any) -> list[bytes]:
    return []


class AsgiApp:
    """An instance is an ASGI application, and so is its method."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""


class WsgiApp:
    """An instance is a WSGI application."""

    def __call__(self, _environ: Any, _start_response: Any) -> list[bytes]:
        return []


class OldAsgi:
    """A class that is itself the application, of ASGI 2."""

    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None:
        """Answer."""


def factory() -> Any:
    return asgi


def gives_coroutine(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    return asgi(scope, receive, send)


@functools.wraps(wsgi)
def pretends(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    return asgi(scope, receive, send)


def open_ended(*args: Any) -> Any:
    return asgi(*args)


def optional(_environ: Any, _start_response: Any = None) -> Any:
    return None


DOUBTFUL = (
    factory,
    gives_coroutine,
    pretends,
    open_ended,
    optional,
    functools.partial(asgi),
    functools.partial(wsgi),
    AsgiApp,
    WsgiApp,
    OldAsgi,
    print,
    functools.lru_cache(wsgi),
)


def test_what_is_certain() -> None:
    assert [is_certainly_asgi(found) for found in (asgi, AsgiApp(), AsgiApp().handle)] == [True] * 3
    assert [is_certainly_wsgi(found) for found in (wsgi, WsgiApp(), WsgiApp().__call__)] == [True] * 3
    assert not any(map(is_certainly_wsgi, (asgi, AsgiApp(), AsgiApp().handle)))
    assert not any(map(is_certainly_asgi, (wsgi, WsgiApp())))


@pytest.mark.parametrize("application", DOUBTFUL)
def test_what_is_not_certain(application: Any) -> None:
    assert not is_certainly_wsgi(application)
    assert not is_certainly_asgi(application)


class Wrapping(SyncWorker):  # type: ignore[misc] # gunicorn is untyped
    """A worker of a user's that can serve ASGI."""

    def load_wsgi(self) -> None:
        """Load the application and put an adapter in front."""


def config(worker_class: str | type, hook: Callable[[Any], None] | None = None) -> Any:
    cfg: Any = Config()
    cfg.instrumented = worker_class
    if hook is not None:
        cfg.set("post_worker_init", hook)
    return cfg


SYNC, ASGI = "promgun.workers.sync.PrometheusWorker", "promgun.workers.asgi.PrometheusASGIWorker"


def test_a_refusal_names_the_type_to_use() -> None:
    with pytest.raises(ApplicationRefusedError, match=r"app:asgi is an ASGI.* type sync .*--worker-type asgi or"):
        check_kind(asgi, "app:asgi", "sync", config(SYNC))
    with pytest.raises(ApplicationRefusedError, match=r"app:wsgi is a WSGI.* type asgi .*--worker-type gthread"):
        check_kind(wsgi, "app:wsgi", "asgi", config(ASGI))
    assert check_kind(wsgi, "app:wsgi", "sync", config(SYNC)) is wsgi
    assert check_kind(asgi, "app:asgi", "asgi", config(ASGI)) is asgi


def test_a_hook_or_a_class_that_may_wrap_it_leaves_room_for_doubt() -> None:
    assert check_kind(asgi, "", "", config(SYNC, lambda _worker: None)) is asgi
    assert check_kind(asgi, "", "", config(Wrapping)) is asgi


def test_a_uvicorn_that_is_to_serve_wsgi_may() -> None:
    uvicorn = pytest.importorskip("promgun.workers.uvicorn")

    class ForWsgi(uvicorn.PrometheusUvicornWorker):  # type: ignore[misc, name-defined] # loaded above
        """uvicorn's worker for WSGI."""

        CONFIG_KWARGS = {"interface": "wsgi"}  # noqa: RUF012 - as in the base class

    assert check_kind(wsgi, "", "", config(ForWsgi)) is wsgi
    with pytest.raises(ApplicationRefusedError):
        check_kind(wsgi, "", "", config(uvicorn.PrometheusUvicornWorker))
