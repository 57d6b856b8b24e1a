"""What the hooks of each framework cost a request, in this process, in microseconds: hooks and the report of a route
against the framework as it is, in turns. Run: ``python benchmarks/frameworks.py [FRAMEWORK ...]``.

``route`` is of the hooked methods alone, with what they were called with in a request, the request's state put into its
``environ`` or ``scope`` included. Each is called many times in turn with the method that it replaces, and the quickest
batches are compared: that can be told apart where a request of 400 us cannot. ``request`` is of whole requests behind
the accounting of a worker, the median of pairs of batches; ``quick`` is of their quickest.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

from promgun.routes.reporting import REPORT  # noqa: E402 - needs the path
from promgun.routes.sources import FRAMEWORKS, RouteSources  # noqa: E402 - same
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
CALLS = 100

#: Makes ``REQUESTS`` requests, whose routes are reported, or are not.
Batch = Callable[[bool], None]


class Hooked(NamedTuple):
    """A method that is hooked, and the framework's own."""

    owner: Any
    name: str
    hook: Callable[..., Any]
    method: Callable[..., Any]


class Call(NamedTuple):
    """A call of a hooked method in a request."""

    hooked: Hooked
    given: tuple[Any, ...]


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
        state.region, state.recorded, state.route = region, False, ""
        scope = {**shared, "state": {}}
        if routes:
            state.table = running
            scope[REPORT] = state
        await application(scope, receive, send)

    async def ask_all(routes: bool) -> None:  # noqa: FBT001 - same
        for _ in range(REQUESTS):
            await ask(routes)

    return lambda routes: asyncio.run(ask_all(routes))


def find_hooks() -> list[Hooked]:
    """Return the hooks in this process."""
    found = []
    for module in filter(None, map(sys.modules.get, (*FRAMEWORKS, "litestar.routes"))):
        for owner in {module, *filter(inspect.isclass, vars(module).values())}:
            for name, hook in list(vars(owner).items()):
                if "hooked_by_promgun" in getattr(hook, "__dict__", {}):
                    found.append(Hooked(owner, name, hook, hook.__wrapped__))
    return found


@contextmanager
def unhooked(hooks: list[Hooked]) -> Iterator[None]:
    """Have the frameworks as they are."""
    for owner, name, _hook, method in hooks:
        setattr(owner, name, method)
    try:
        yield
    finally:
        for owner, name, hook, _method in hooks:
            setattr(owner, name, hook)


def calls_in(batch: Batch, hooks: list[Hooked]) -> list[Call]:
    """Return the calls of hooked methods that a request makes."""
    calls: list[Call] = []

    def recording(hooked: Hooked) -> Callable[..., Any]:
        def record(*given: Any) -> Any:
            calls.append(Call(hooked, given))
            return hooked.hook(*given)

        return record

    for hooked in hooks:
        setattr(hooked.owner, hooked.name, recording(hooked))
    batch(True)  # noqa: FBT003 - the parameter's name is another in each function
    for owner, name, hook, _method in hooks:
        setattr(owner, name, hook)
    return calls[-(len(calls) // REQUESTS) :]


def carrier_of(call: Call) -> dict[str, Any]:
    """Return the environ or scope that a hooked method was called with."""
    for given in call.given:
        for each in (given, *(getattr(given, name, None) for name in ("environ", "env", "scope"))):
            if isinstance(each, dict) and REPORT in each:
                return each
        request = getattr(given, "request", None) or getattr(given, "request_websocket", None)
        if request is not None:
            return carrier_of(Call(call.hooked, (request,)))
    raise LookupError(call)


def repeated(call: Call, carrier: dict[str, Any], state: RequestState, table: Any) -> Callable[[bool], float]:
    """Return what calls a hooked method, or the framework's own, and returns the microseconds that a call takes."""
    hooked, given = call
    state.region = table.free[-1]
    starts_coroutine = inspect.iscoroutinefunction(hooked.method)

    def repeat(routes: bool) -> float:  # noqa: FBT001 - the one thing that differs
        call_it = hooked.hook if routes else hooked.method
        start = time.thread_time_ns()
        for _ in range(CALLS):
            state.route = ""
            if routes:
                state.table = table
                carrier[REPORT] = state
            result = call_it(*given)
            if starts_coroutine:
                result.close()
        return (time.thread_time_ns() - start) / CALLS / 1_000

    return repeat


def cost_of_route(calls: list[Call], rounds: int) -> float:
    """Return the microseconds that the hooks add to the methods that a request calls."""
    table = ProcessStore().board.requests
    cost = 0.0
    for call in calls:
        carrier = carrier_of(call)
        state = RequestState()
        state.recorded = False
        repeat = repeated(call, carrier, state, table)
        without, routed = zip(*((repeat(False), repeat(True)) for _ in range(8 * rounds)), strict=True)  # noqa: FBT003 - as above
        cost += min(routed) - min(without)
    return cost


def timed(batch: Batch, *, routes: bool) -> float:
    """Return the microseconds of CPU that a request takes."""
    start = time.thread_time_ns()
    batch(routes)
    return (time.thread_time_ns() - start) / REQUESTS / 1_000


def main() -> None:
    """Measure each framework, and print the table."""
    makers = {name: (wsgi, path) for name, path in WSGI.items()} | {name: (asgi, path) for name, path in ASGI.items()}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frameworks", nargs="*", choices=[*makers, []], help="all, if none is named")
    parser.add_argument("--quick", action="store_true", help="a quarter of the rounds")
    options = parser.parse_args()
    rounds = ROUNDS // 4 if options.quick else ROUNDS
    print(f"{'framework':12}{'route':>9}{'request without':>19}{'with':>13}{'costs':>14}{'quick':>12}")
    for framework in options.frameworks or makers:
        make, path = makers[framework]
        batch = make(framework, path)
        timed(batch, routes=True)
        hooks = find_hooks()
        step = cost_of_route(calls_in(batch, hooks), rounds)
        without, routed = [], []
        for _ in range(rounds):
            with unhooked(hooks):
                without.append(timed(batch, routes=False))
            routed.append(timed(batch, routes=True))
        cost = median(after - before for before, after in zip(without, routed, strict=True))
        base, quick = median(without), min(routed) - min(without)
        print(f"{framework:12}{step:6.2f} us{base:16.1f} us{base + cost:10.1f} us{cost:11.2f} us{quick:9.2f} us")


if __name__ == "__main__":
    main()
