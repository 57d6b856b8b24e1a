"""The doubt of a worker whether its application is of the other kind."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from promgun.workers._kind_doubt import KindDoubt


def application(_environ: Any) -> None: ...


class Worker:
    """A worker that serves ``application`` and keeps what it logs."""

    standalone = None

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.app = SimpleNamespace(wsgi=lambda: application, app_uri="shop:app", worker_type="sync")
        self.log = SimpleNamespace(warning=lambda text, *args: self.lines.append(text % args))


def failure() -> BaseException:
    try:
        application(1, 2)  # type: ignore[call-arg] # what a server of WSGI calls
    except TypeError as error:
        return error.with_traceback(None)
    raise AssertionError


def test_it_is_said_once() -> None:
    worker = Worker()
    doubt = KindDoubt(worker, calls_asgi=False)
    doubt.look(ValueError())
    doubt.look(None)
    assert worker.lines == []
    doubt.look(failure())
    doubt.look(failure())
    assert len(worker.lines) == 1
    assert "shop:app seems to be an ASGI application" in worker.lines[0]


def test_a_request_does_not_fail_where_the_package_can_no_longer_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    monkeypatch.setitem(sys.modules, "promgun.workers._application_kind", None)
    KindDoubt(worker, calls_asgi=False).look(failure())
    assert worker.lines == []
