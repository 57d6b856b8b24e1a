"""What the routes of each framework cost a request, in microseconds. Run: ``python benchmarks/frameworks.py
[FRAMEWORK ...]``.

``hook`` is of the hooked methods alone, with what they were called with in a request, the request's state put into its
``environ`` or ``scope`` included: each is called many times in turn with the method that it replaces, and the quickest
batches are compared.

``costs`` is of whole requests behind the accounting of a worker. They are made by twins, processes forked from one that
has imported the application: one has the framework as it is, the other has its routes reported. They take turns of some
milliseconds, in random order, and the medians of the differences are compared. A twin cannot disturb the other's inline
caches, as hooks that are put and removed in one process do. How often CPython looks up an attribute anew depends on
where names and classes lie in memory, so the twins are made several times, each time in a new process: shown are the
median of these and the quartiles. ``null`` is the same for a second twin that has the framework as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import inspect
import json
import logging
import os
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from types import SimpleNamespace
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

from gunicorn.config import Config  # noqa: E402 - needs the path

from promgun.metrics.instruments import Instruments  # noqa: E402 - same
from promgun.routes.sources import (  # noqa: E402 - same
    FRAMEWORKS,
    REPORT,
    RouteSources,
)
from promgun.store.process import ProcessStore  # noqa: E402 - same
from promgun.workers._accounting import RequestAccounting  # noqa: E402 - same
from promgun.workers._asgi_follower import AsgiRequest, begin_request  # noqa: E402 - same
from promgun.workers._queue_time import TrustedPeers  # noqa: E402 - same
from promgun.workers._request_state import FollowedState, RequestState  # noqa: E402 - same
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
#: New processes, turns in each, and requests a turn, before which some are made to fill the processor's caches.
PROCESSES = 9
TURNS = 80
REQUESTS = 50
WARM_UP = 20
#: Requests before anything is measured.
FIRST = 1_000
HOOK_BATCHES = 480
CALLS = 100

#: Makes so many requests.
Batch = Callable[[int], None]


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


class Measured(NamedTuple):
    """Microseconds of one process: a request without routes, what they add, what a second twin without them adds, and
    what the hooked methods alone add.
    """

    without: float
    costs: float
    null: float
    hook: float


def wsgi(application: Any, path: str, *, routes: bool) -> Batch:
    """Return what asks an application behind the accounting of a WSGI worker."""
    routed = RoutedWSGI(application, hooks=routes)
    # Into rows, not into a list.
    routed.accounting.record = routed.recorder.record

    def batch(requests: int) -> None:
        for _ in range(requests):
            routed.serve("GET", path)

    return batch


def asgi(application: Any, path: str, *, routes: bool) -> Batch:
    """Return what asks an application as the adapter of an ASGI server does."""
    store, sources, cfg = ProcessStore(), RouteSources(), Config()
    accounting = RequestAccounting(store.board, Instruments(store, cfg), TrustedPeers(cfg), routes=sources)
    if routes:
        sources.install()
    shared, peer = http_scope("GET", path), ("127.0.0.1", 5)
    loop = asyncio.new_event_loop()

    async def ask() -> None:
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
                request.finish(200)
                answered.set()

        scope = {**shared, "state": {}}
        request = begin_request(accounting, "GET", path, peer, scope=scope)
        await application(scope, receive, send)

    async def ask_all(requests: int) -> None:
        for _ in range(requests):
            await ask()

    return lambda requests: loop.run_until_complete(ask_all(requests))


def find_hooks() -> list[Hooked]:
    """Return the hooks in this process."""
    found = []
    for module in filter(None, map(sys.modules.get, (*FRAMEWORKS, "litestar.routes"))):
        for owner in {module, *filter(inspect.isclass, vars(module).values())}:
            for name, hook in list(vars(owner).items()):
                if "hooked_by_promgun" in getattr(hook, "__dict__", {}):
                    found.append(Hooked(owner, name, hook, hook.__wrapped__))
    return found


def calls_in(batch: Batch) -> list[Call]:
    """Return the calls of hooked methods that a request makes."""
    calls: list[Call] = []
    hooks = find_hooks()

    def recording(hooked: Hooked) -> Callable[..., Any]:
        def record(*given: Any) -> Any:
            calls.append(Call(hooked, given))
            return hooked.hook(*given)

        return record

    for hooked in hooks:
        setattr(hooked.owner, hooked.name, recording(hooked))
    batch(1)
    for owner, name, hook, _method in hooks:
        setattr(owner, name, hook)
    return calls


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


def cost_of_hook(call: Call, new_state: Callable[[], RequestState]) -> float:
    """Return the microseconds that a hook adds to its method."""
    hooked, given = call
    table, carrier, state = ProcessStore().board.requests, carrier_of(call), new_state()
    state.region, state.recorded = table.free[-1], False
    starts_coroutine = inspect.iscoroutinefunction(hooked.method)

    def timed(call_it: Callable[..., Any], *, routes: bool) -> float:
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

    pairs = [(timed(hooked.method, routes=False), timed(hooked.hook, routes=True)) for _ in range(HOOK_BATCHES)]
    without, routed = zip(*pairs, strict=True)
    cost: float = min(routed) - min(without)
    return cost


def twin(make: Callable[[], Callable[[], float]]) -> Callable[[], float]:
    """Fork a process, which ends with this one; return a function that has it call what ``make`` returns there."""
    asks, answers = os.pipe(), os.pipe()
    if os.fork() == 0:
        status = 1
        try:
            for end in (asks[1], answers[0]):
                os.close(end)
            measure = make()
            while os.read(asks[0], 1):
                os.write(answers[1], f"{measure()!r}\n".encode())
            status = 0
        finally:
            os._exit(status)

    def ask() -> float:
        os.write(asks[1], b".")
        answer = os.read(answers[0], 99)
        if not answer:
            raise SystemExit("a twin failed")
        return float(answer)

    for end in (asks[0], answers[1]):
        os.close(end)
    return ask


def measure_in_twins(framework: str) -> Measured:
    """Measure a framework in twins of this process."""
    path = (WSGI | ASGI)[framework]
    server = wsgi if framework in WSGI else asgi
    application = importlib.import_module(f"tests.apps.routes.{framework}_app").app

    def requests(routes: bool) -> Callable[[], float]:  # noqa: FBT001 - what differs between twins
        batch = server(application, path, routes=routes)
        batch(FIRST)
        gc.collect()

        def turn() -> float:
            batch(WARM_UP)
            start = time.thread_time_ns()
            batch(REQUESTS)
            return (time.thread_time_ns() - start) / REQUESTS / 1_000

        return turn

    def hooks() -> Callable[[], float]:
        batch = server(application, path, routes=True)
        batch(FIRST)
        new_state = FollowedState if framework in WSGI else AsgiRequest
        calls = [] if framework == "litestar" else calls_in(batch)
        return lambda: sum((cost_of_hook(call, new_state) for call in calls), 0.0)

    twins = [twin(lambda: requests(False)), twin(lambda: requests(True)), twin(lambda: requests(False))]  # noqa: FBT003 - same
    turns: list[list[float]] = [[], [], []]
    for _ in range(TURNS):
        for number in random.sample(range(3), 3):
            turns[number].append(twins[number]())
    without, routed, second = turns
    return Measured(
        median(without),
        median(after - (before + again) / 2 for before, after, again in zip(without, routed, second, strict=True)),
        median(again - before for before, again in zip(without, second, strict=True)),
        twin(hooks)(),
    )


def measured(framework: str) -> Measured:
    """Measure a framework in a new process."""
    output = subprocess.run(
        [sys.executable, __file__, "--once", framework], check=True, capture_output=True, text=True
    ).stdout
    return Measured(*json.loads(output))


def shown(figures: list[float]) -> str:
    """Return the median of some figures, and their quartiles."""
    lower, middle, upper = quantiles(figures, n=4, method="inclusive")
    return f"{middle:8.2f} ({lower:5.2f} to {upper:5.2f})"


def main() -> None:
    """Measure each framework, and print the table."""
    names = [*WSGI, *ASGI]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frameworks", nargs="*", choices=[*names, []], help="all, if none is named")
    parser.add_argument("--quick", action="store_true", help="a third of the processes")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measure_in_twins(options.frameworks[0])))
        return
    print(f"{'framework':12}{'hook':>8}{'without':>12}{'costs':>16}{'null':>26}")
    for framework in options.frameworks or names:
        results = [measured(framework) for _ in range(PROCESSES // 3 if options.quick else PROCESSES)]
        without, costs, null, hook = map(list, zip(*results, strict=True))
        print(f"{framework:12}{min(hook):8.2f}{median(without):12.1f}    {shown(costs)}  {shown(null)}", flush=True)


if __name__ == "__main__":
    main()
