"""What the hook of each framework costs a request, in this process: the application behind promgun's accounting, with
and without routes, in turns. Run: ``python benchmarks/frameworks.py``; a table of microseconds a request.

Without routes the hook is called and finds no request to report to. ``quick`` is the difference of the quickest batches
of each, which other work on the machine moves least.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

from promgun.routes.reporting import REPORT  # noqa: E402 - needs the path
from promgun.routes.sources import RouteSources  # noqa: E402 - same
from promgun.store.process import ProcessStore  # noqa: E402 - same
from promgun.workers._request_state import RequestState  # noqa: E402 - same
from tests.support.routed import RoutedWSGI, http_scope  # noqa: E402 - same

#: A path of each application of ``tests/apps/routes``.
WSGI = {
    "flask": "/users/5",
    "django": "/users/5/",
    "falcon": "/users/5",
    "pyramid": "/users/5",
    "bottle": "/users/5",
}
ASGI = {"starlette": "/users/5", "fastapi": "/plain", "litestar": "/users/5", "quart": "/users/5"}
ROUNDS = 60
REQUESTS = 200

#: Makes ``REQUESTS`` requests, with routes or without.
Batch = Callable[[bool], None]


def wsgi(framework: str, path: str) -> Batch:
    """Return what asks an application behind the accounting of a WSGI worker."""
    routed = RoutedWSGI(importlib.import_module(f"tests.apps.routes.{framework}_app").app)

    def batch(routes: bool) -> None:  # noqa: FBT001 - the one thing that differs
        routed.accounting.routes.active = routes
        for _ in range(REQUESTS):
            routed.ask("GET", path)
        routed.counted.clear()

    return batch


def asgi(framework: str, path: str) -> Batch:
    """Return what asks an application whose scopes have a request's state in the table, or none."""
    application = importlib.import_module(f"tests.apps.routes.{framework}_app").app
    RouteSources().install()
    running = ProcessStore().board.requests
    region = running.free.pop()
    shared = http_scope("GET", path)

    async def ask(routes: bool) -> None:  # noqa: FBT001 - the one thing that differs
        begun = SimpleNamespace(body=True)
        answered = asyncio.Event()

        async def receive() -> Any:
            if begun.body:
                begun.body = False
                return {"type": "http.request", "body": b"", "more_body": False}
            await answered.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                answered.set()

        state = RequestState()
        state.region, state.table, state.recorded, state.route = region, running, False, ""
        scope = {**shared, "state": {}}
        if routes:
            scope[REPORT] = state
        await application(scope, receive, send)

    async def ask_all(routes: bool) -> None:  # noqa: FBT001 - same
        for _ in range(REQUESTS):
            await ask(routes)

    return lambda routes: asyncio.run(ask_all(routes))


def timed(batch: Batch, *, routes: bool) -> float:
    """Return the microseconds of CPU that a request takes."""
    start = time.thread_time_ns()
    batch(routes)
    return (time.thread_time_ns() - start) / REQUESTS / 1_000


def main() -> None:
    """Measure each framework, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the rounds")
    rounds = ROUNDS // 4 if parser.parse_args().quick else ROUNDS
    print(f"{'framework':12}{'without':>10}{'with':>13}{'routes cost':>14}{'quick':>12}")
    makers = [(wsgi, name, path) for name, path in WSGI.items()] + [(asgi, name, path) for name, path in ASGI.items()]
    for make, framework, path in makers:
        batch = make(framework, path)
        timed(batch, routes=True)
        without, routed = [], []
        for _ in range(rounds):
            without.append(timed(batch, routes=False))
            routed.append(timed(batch, routes=True))
        cost = median(after - before for before, after in zip(without, routed, strict=True))
        base, quick = median(without), min(routed) - min(without)
        print(f"{framework:12}{base:8.1f} us{base + cost:10.1f} us{cost:11.2f} us{quick:9.2f} us")


if __name__ == "__main__":
    main()
