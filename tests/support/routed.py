"""Requests to an application in this process, counted as a worker counts them: what each one's route is."""

from __future__ import annotations

import asyncio
import importlib
import io
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

from gunicorn.config import Config
from gunicorn.http.body import LengthReader

from promgun.metrics.instruments import Instruments
from promgun.routes.patterns import RoutePatterns
from promgun.routes.sources import REPORT, ROUTE, RouteSources
from promgun.store.process import ProcessStore
from promgun.store.request_table import OVER
from promgun.workers._accounting import RequestAccounting
from promgun.workers._instrumentation import follow_application, follow_requests
from promgun.workers._queue_time import TrustedPeers
from promgun.workers._responses import ResponseObserver


def module_of(framework: str) -> Any:
    """Return the module of a framework's application."""
    return importlib.import_module(f"tests.apps.routes.{framework}_app")


class Answer(NamedTuple):
    """How a request was counted."""

    status: int
    route: str


class _Response:
    """What is used of a response of Gunicorn's."""

    response_length: int | None = None
    headers_sent = False
    status: str | None = None
    status_code = 0
    sent = 0

    def __init__(self, req: Any) -> None:
        self.req = req
        self.headers: list[tuple[str, str]] = []

    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], _error: Any = None
    ) -> Callable[..., None]:
        """Accept a status."""
        self.status, self.status_code, self.headers = status, int(status.split(maxsplit=1)[0]), list(headers)
        return lambda _: None

    def close(self) -> None:
        """Do nothing; the accounting counts before that."""


class RoutedWSGI:
    """A WSGI application behind what a worker puts in front of it; ``look`` gets the route that other processes see as
    the answer is counted. Without ``hooks`` the framework stays as it is.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        patterns: Iterable[str] = (),
        look: Callable[[str], None] | None = None,
        *,
        hooks: bool = True,
    ) -> None:
        patterns = tuple(patterns)
        self.warnings: list[str] = []
        sources = RouteSources(
            RoutePatterns(patterns) if patterns else None, lambda text, *given: self.warnings.append(text % given)
        )
        if hooks:
            sources.install()
        store = ProcessStore()
        self.board = store.board
        instruments = Instruments(store, Config())
        self.recorder = instruments.recorder
        self.accounting = RequestAccounting(self.board, instruments, TrustedPeers(Config()), routes=sources)
        self.counted: list[Answer] = []
        self.accounting.record = lambda _method, route, status, *_: self.counted.append(Answer(status, route))
        self.failed: list[tuple[str, ...]] = []
        self.accounting.inc = lambda _family, labels: self.failed.append(labels)
        self._called = follow_application(application, self.accounting)

        def answered(*request: Any) -> None:
            if look is not None:
                look(self.running_route())
            self.accounting.answered(*request)

        responses = ResponseObserver(
            self.accounting, self.accounting.answered if look is None else answered, self.accounting.raised
        )
        self._response_class = type("Response", (_Response,), {})
        responses.measure(self._response_class)
        shape = SimpleNamespace(request_at=0, only_region=None, region_of_connection=False, max_requests=2**63 - 1)
        self._follow = follow_requests(self._handle, shape, self.accounting, responses)
        self.body = b""

    def ask(self, method: str, path: str, **environ: Any) -> Answer:
        """Make a request; return how it was counted."""
        self.serve(method, path, **environ)
        return self.counted[-1]

    def serve(self, method: str, path: str, **environ: Any) -> None:
        """Make a request."""
        body = SimpleNamespace(reader=LengthReader(None, 0))
        self._follow(SimpleNamespace(method=method, path=path, body=body, peer_addr=("127.0.0.1", 5)), environ)

    def running_route(self) -> str:
        """Return the route of the request that runs, as other processes see it."""
        (running,) = self.board.view(0).running()
        return running.route

    def _handle(self, req: Any, more: Mapping[str, Any]) -> None:
        path, _, query = req.path.partition("?")
        environ = {
            "REQUEST_METHOD": req.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            **more,
        }
        response = self._response_class(req)
        try:
            result = self._called(environ, response.start_response)
            try:
                self.body = b"".join(result)
            finally:
                if hasattr(result, "close"):
                    result.close()
        except Exception as error:  # noqa: BLE001 - answered as handle_error does
            self.accounting.raised(req, req.promgun, type(error).__name__)
            response.status_code = 500
        response.close()


def http_scope(method: str, path: str) -> dict[str, Any]:
    """Return the scope of a request as a server makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 5),
        "server": ("localhost", 80),
        "state": {},
    }


class RoutedASGI:
    """An ASGI application, and what its hooks report of each request."""

    def __init__(self, application: Callable[..., Any]) -> None:
        sources = RouteSources()
        sources.install()
        assert sources.active
        self._application = application
        self.route = ""

    def ask(self, method: str, path: str, **scope: Any) -> Answer:
        """Make a request; return its status and route."""
        return asyncio.run(self._ask(method, path, scope))

    async def _ask(self, method: str, path: str, more: Mapping[str, Any]) -> Answer:
        statuses: list[int] = []
        self.route = ""
        scope = {
            **http_scope(method, path),
            REPORT: SimpleNamespace(region=OVER, route_known=partial(setattr, self, "route")),
            **more,
        }
        done = asyncio.Event()
        bodies = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            for body in bodies:
                return body
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            elif not message.get("more_body"):
                done.set()

        try:
            await self._application(scope, receive, send)
        except Exception:  # noqa: BLE001 - servers answer it, unless the application has
            statuses.append(500)
        named = scope.get(ROUTE)
        return Answer(statuses[0], named if isinstance(named, str) else self.route)
