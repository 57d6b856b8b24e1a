"""Routes on a real server: known while a request runs and after SIGKILL, with each worker type; every framework."""

from __future__ import annotations

import importlib
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Page, PromgunProcess, wait_until
from tests.support.http_client import Connection, Request, send

pytestmark = [
    pytest.mark.seam,
    # The tables of requests stand beside the applications: WebOb imports cgi, Bottle 0.12 leaves an old finder.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:_ImportRedirect:ImportWarning"),
]
FRAMEWORKS = ("flask", "django", "falcon", "pyramid", "bottle")
ROOT = str(Path(__file__).parents[2])


def ask(server: PromgunProcess, line: str, *headers: tuple[str, str]) -> int:
    """Make a request; return the status."""
    method, path = line.split()
    return send(server.address, method=method, path=path, headers=headers).status


def routes(page: Page) -> Counter[tuple[str, str]]:
    """Return how often each route was answered with each status."""
    counted: Counter[tuple[str, str]] = Counter()
    for sample in page.select("gunicorn_requests_total"):
        counted[sample.labels["route"].replace("\\\\", "\\"), sample.labels["status"]] += int(sample.value)
    return counted


def test_a_route_is_known_while_the_request_runs_and_after_sigkill(worker_type: str) -> None:
    """With an application that is hidden by a wrapper; of one type with --preload, of another after SIGHUP."""
    options = ("--preload",) if worker_type == "sync" else ()
    with PromgunProcess(
        "-k", worker_type, "--pythonpath", ROOT, *options, app="tests.apps.routes.served:waiting()"
    ) as server:
        if worker_type == "gthread":
            before = server.workers()
            server.send_signal(signal.SIGHUP)
            wait_until(lambda: server.workers() and not set(server.workers()) & set(before))
            server.expect("gunicorn_reloads_total", 1)
        with Connection(server.address) as connection:
            connection.socket.sendall(Request("/wait/one").encode("1.1", keepalive=False))
            wait_until((server.sandbox.directory / "one").exists)
            listed = server.sandbox.run("-m", "promgun", "ps", "--requests", "--format", "json")
            assert [each["route"] for each in json.loads(listed.stdout)] == ["/wait/<name>"]
            server.send_signal(signal.SIGKILL, server.workers()[0])
            server.expect("gunicorn_requests_lost_total", 1, cause="killed", route="/wait/<name>")
            assert "GET /wait/one" in server.log
        server.sandbox.write("go", "")
        assert ask(server, "GET /wait/two") == 200
        server.expect("gunicorn_requests_total", 1, route="/wait/<name>", status="200")


def compare(server: PromgunProcess, module: Any, header: tuple[str, str]) -> None:
    """Wait until the framework of this module is hooked; then make its requests, and compare how they were counted."""
    line, (status, route) = next(
        (line, answer) for line, answer in module.REQUESTS.items() if answer[0] == 200 and len(answer[1]) > 2
    )

    def is_hooked() -> bool:
        ask(server, line, header)
        return routes(server.fresh())[route, str(status)] > 0

    wait_until(is_hooked, message=lambda: f"{line}: {routes(server.scrape())}")
    before = routes(server.fresh())
    for each in module.REQUESTS:
        ask(server, each, header)
    expected = before + Counter((route, str(status)) for status, route in module.REQUESTS.values())
    wait_until(lambda: routes(server.scrape()).total() >= expected.total())
    assert routes(server.fresh()) == expected


def test_each_framework_is_hooked_even_if_a_request_imports_it() -> None:
    with PromgunProcess(
        *("--pythonpath", ROOT, "--metrics-route", "/unnamed/{x}", "--metrics-route", "/unnamed/{x}/{y}"),
        app="tests.apps.routes.served:lazy",
    ) as server:
        for framework in FRAMEWORKS:
            compare(server, importlib.import_module(f"tests.apps.routes.{framework}_app"), ("X-App", framework))
        ask(server, "GET /unnamed/a", ("X-App", "flask"))
        server.expect("gunicorn_requests_total", 1, route="/unnamed/{x}", status="404")
