"""Which worker classes and which applications are not WSGI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import GunicornWebWorker, web
from gunicorn.workers.base import Worker
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.gasgi import ASGIWorker
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker
from starlette.applications import Starlette
from uvicorn_worker import UvicornH11Worker, UvicornWorker

from promgun.demo import app as demo
from promgun.workers._unmeasured import serves_wsgi
from promgun.workers._wsgi_fallback import is_wsgi_callable


class SyncWithLoop(SyncWorker):  # type: ignore[misc] # gunicorn is untyped
    """Serves WSGI, and has a coroutine of its own."""

    async def refresh(self) -> None:
        """Do nothing."""


class OwnServer(Worker):  # type: ignore[misc] # same
    """Serves somehow, without coroutines."""


class StaticCoroutine(Worker):  # type: ignore[misc] # same
    """Serves on an event loop, by a function that is no method."""

    @staticmethod
    async def serve() -> None:
        """Do nothing."""


class Generator(Worker):  # type: ignore[misc] # same
    """Serves on an event loop."""

    async def clients(self) -> AsyncIterator[int]:
        """Yield one."""
        yield 1


@pytest.mark.parametrize("worker_class", [SyncWorker, ThreadWorker, AsyncWorker, SyncWithLoop, OwnServer])
def test_classes_for_wsgi(worker_class: type) -> None:
    assert serves_wsgi(worker_class)


@pytest.mark.parametrize(
    "worker_class",
    [ASGIWorker, UvicornWorker, UvicornH11Worker, GunicornWebWorker, StaticCoroutine, Generator],
)
def test_classes_for_something_else(worker_class: type) -> None:
    assert not serves_wsgi(worker_class)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Do nothing."""


async def anything(*args: Any) -> None:
    """Do nothing."""


class OfTwoKinds:
    """Takes what it gets."""

    def __call__(self, *args: Any) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("application", "expected"),
    [
        (demo, True),
        (OfTwoKinds(), True),
        (max, True),
        (asgi, False),
        (anything, False),
        (Starlette(), False),
        (web.Application(), False),
        (lambda scope: scope, False),
    ],
)
def test_applications(application: Callable[..., Any], expected: bool) -> None:  # noqa: FBT001 - a column
    assert is_wsgi_callable(application) is expected
