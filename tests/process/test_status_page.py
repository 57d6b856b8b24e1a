"""The status page in a real browser, before real servers."""

from __future__ import annotations

import json
import re
import signal
import threading
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from promgun.status.figures import FIGURES
from promgun.status.json import to_json
from tests.support.browser import Browser
from tests.support.endpoint_server import Endpoint
from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import Address, Connection, Request, load, send
from tests.support.snapshots import watched

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_browser = pytest.mark.needs("chromedriver")
WIDTHS = (390, 1280, 2200)
HOSTILE = "<img src=x onerror=document.title='owned'>"


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Give a browser that is gone, with all its processes, at the end."""
    with Sandbox() as place, Browser(place) as opened:
        yield opened


@contextmanager
def traffic(address: Address) -> Iterator[None]:
    """Keep a server busy for a while, with some failures."""
    stopped = threading.Event()

    def send_on() -> None:
        while not stopped.wait(0.05):
            load(address, [*[Request("/ok")] * 20, Request("/status/500"), Request("/sleep/0.05")], concurrency=2)

    thread = threading.Thread(target=send_on)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def url(address: Address) -> str:
    return f"http://{address[0]}:{address[1]}/"


def number(text: str) -> float:
    """The number that a figure begins with, 0 for a dash."""
    first = text.split(maxsplit=1)[0] if text.split() else ""
    return float(first) if first.replace(".", "", 1).isdigit() else 0.0


def overflow(browser: Browser) -> int:
    """By how many pixels the page is wider than the window."""
    return int(browser.run("return document.documentElement.scrollWidth - innerWidth"))


def bars(browser: Browser, figure: str) -> int:
    """How many bars a chart has."""
    return int(
        browser.run(f"return document.querySelector('#figure-{figure} path').getAttribute('d').split('M').length - 1")
    )


@needs_browser
def test_the_numbers_move_and_a_killed_worker_shows(browser: Browser) -> None:
    with PromgunProcess("--name", "shop", app="probe:app", workers=2) as server:
        browser.resize(1280)
        browser.open(url(server.metrics_address))
        wait_until(lambda: browser.text("h1") == "shop")
        wait_until(lambda: browser.text("#figure-requests .value") == "0 /s")
        assert browser.text("#figure-workers .value") == "2 of 2: 2 idle"
        assert len(browser.text("#workers tbody").splitlines()) == 2
        with traffic(server.address):
            wait_until(lambda: number(browser.text("#figure-requests .value")) > 5)
            wait_until(lambda: number(browser.text("#figure-errors .value")) > 0)
            wait_until(lambda: number(browser.text("#figure-p99 .value")) > 0)
            victim = server.workers()[0]
            assert str(victim) in browser.text("#workers")
            server.send_signal(signal.SIGKILL, victim)
            wait_until(lambda: browser.text("#exits").endswith("killed"))
            wait_until(lambda: str(victim) not in browser.text("#workers"))
            assert browser.text("#causes") == "killed 1 (+1 while watched)"
        before = bars(browser, "requests")
        wait_until(lambda: bars(browser, "requests") > before > 1)
        assert browser.text("#banner") == ""
        assert browser.console() == []


@needs_browser
def test_it_says_so_when_nobody_answers_and_goes_on_by_itself(browser: Browser) -> None:
    with PromgunProcess("--name", "first", app="probe:app") as server:
        address = server.metrics_address
        browser.open(url(address))
        wait_until(lambda: browser.text("h1") == "first")
        assert browser.console() == []
    wait_until(lambda: browser.text("#banner").startswith("No answer from the server since"))
    assert browser.run("return document.title").startswith("(!) first")
    with PromgunProcess("--name", "second", app="probe:app", metrics=f"{address[0]}:{address[1]}"):
        wait_until(lambda: browser.text("h1") == "second")
        assert browser.text("#banner") == ""
        assert browser.run("return document.title").startswith("second")


@needs_browser
def test_a_server_that_hangs_is_missed_from_its_last_answer_on(browser: Browser) -> None:
    """The page waits some seconds for an answer: that wait is a part of the silence."""
    with PromgunProcess("--name", "shop", app="probe:app") as server:
        browser.open(url(server.metrics_address))
        wait_until(lambda: browser.text("h1") == "shop")
        hung = wait_until(server.metrics_pid)
        server.send_signal(signal.SIGSTOP, hung)
        try:
            wait_until(lambda: browser.text("#banner"))
            (since,) = re.findall(r"since (\d+:\d+:\d+)", browser.text("#banner"))
            (last,) = re.findall(r"\d+:\d+:\d+", browser.text("#clock"))
        finally:
            server.send_signal(signal.SIGCONT, hung)
        assert (datetime.strptime(since, "%H:%M:%S") - datetime.strptime(last, "%H:%M:%S")).seconds <= 1  # noqa: DTZ007
        wait_until(lambda: browser.text("#banner") == "")


ROUTE_TEXTS = ("route", "rate", "errors", "p50", "p95", "busy", "cpu")


def worker(slot: int) -> dict[str, Any]:
    """A worker with long names and numbers."""
    running = [{"phase": HOSTILE, "method": "PROPPATCH", "route": HOSTILE * 9, "age_seconds": 86399.0}] * 3
    cells = {"age": "23h59m", "rate": "12346", "in_use": "1000/1000", "lag": "2h 59m", "cpu": "999%", "memory": "954M"}
    return {
        "worker_id": slot,
        "pid": 4_194_304,
        "state": "draining",
        "requests_in_progress": 1000,
        "capacity": 1000,
        "requests_per_second": 12345.6,
        "loop_lag_seconds": 10_799.0,
        "cpu_share": 9.99,
        "utilisation_share": 1.0,
        "resident_memory_bytes": 10**9,
        "requests_left": 1_000_000,
        "running": running,
        "texts": {"request": f"PROPPATCH {HOSTILE * 9} +2", **cells},
    }


def crowd() -> str:
    """The status of many workers, whose every text would be markup if a page let it."""
    names = ("name", "application", "worker_type", "gunicorn", "promgun", "python")
    instance = dict.fromkeys(names, HOSTILE) | {"addresses": [HOSTILE] * 5, "uptime_text": HOSTILE}
    now = {
        **dict.fromkeys(("workers", "requests_in_progress", "capacity", "queue_connections", "queue_limit"), 10**6),
        **dict.fromkeys(("requests_per_second", "longest_bound_seconds", "p50_seconds", "p95_seconds"), 86399.0),
        "error_share": 1.0,
        "utilisation_share": 1.0,
        "p99_seconds": None,
    }
    figure = {"text": HOSTILE, "level": "bad", "point": "requests_per_second", "most": HOSTILE, "ceiling": 86399.0}
    return json.dumps(
        {
            "taken_unix_seconds": 1e9,
            "figures": [figure | {"name": name} for name in FIGURES],
            "up": True,
            "instance": instance,
            "workers_target": 10**6,
            "workers_by_state": dict.fromkeys(("booting", "idle", "busy", "draining", "hung", HOSTILE), 10**6),
            "now": now,
            "history": {"seconds": 60, "points": [now | {"at_unix_seconds": 1e9, "interval_seconds": 1.0}]},
            "workers": [worker(slot) for slot in range(100)],
            "routes": [
                {
                    "route": HOSTILE,
                    "texts": dict.fromkeys(("route", "rate", "errors", "p50", "p95", "busy", "cpu"), HOSTILE),
                }
            ]
            * 50,
            "routes_left_out": None,
            "exits": {
                "total": {HOSTILE: 10**6, "graceful_timeout": 10**6},
                "since_watch": {HOSTILE: 5},
                "last": [{"at_unix_seconds": 1e9, "cause": HOSTILE, "count": 3}] * 50,
            },
        }
    )


@needs_browser
def test_no_text_becomes_markup_and_none_breaks_the_layout(browser: Browser) -> None:
    with Endpoint(status=crowd) as endpoint:
        browser.open(url(endpoint.address))
        wait_until(lambda: browser.run("return document.querySelectorAll('#workers tbody tr').length") == 100)
        assert browser.run("return document.querySelectorAll('img').length") == 0
        assert browser.text("h1") == HOSTILE
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            for width in WIDTHS:
                browser.resize(width, mobile=width < 600)
                assert overflow(browser) <= 0, (scheme, width)
        browser.resize(390, mobile=True)
        lefts = browser.run(
            "return [...document.querySelectorAll('.figure')].map(box => box.getBoundingClientRect().left)"
        )
        assert len(lefts) == len(FIGURES)
        assert len(set(lefts)) == 1, "one column"
        assert browser.console() == []


@needs_browser
def test_page_shows_the_texts_of_the_server_and_makes_none(browser: Browser) -> None:
    """The terminal is tested to show the same ones."""
    text = to_json(*watched(4, 70, requests_left=77, loop_lag=0.0125, routes=60), paths=True)
    told = json.loads(text)
    with Endpoint(status=lambda: text) as endpoint:
        browser.open(url(endpoint.address))
        wait_until(lambda: browser.text("h1") == "shop")
        shown = {name: browser.text(f"#figure-{name.replace(' ', '-')} .value") for name in FIGURES}
        assert shown == {figure["name"]: figure["text"] for figure in told["figures"]}
        most = {name: browser.text(f"#figure-{name.replace(' ', '-')} .peak") for name in FIGURES}
        assert most == {figure["name"]: f"most {figure['most']}" for figure in told["figures"]}
        assert f"up {told['instance']['uptime_text']}" in browser.text("#about")
        rows = browser.run(
            "return [...document.querySelectorAll('#workers tbody tr')]"
            ".map(row => [...row.cells].slice(3, 10).map(cell => cell.textContent))"
        )
        assert rows == [list(worker["texts"].values()) for worker in told["workers"]]
        by_route = (
            "return [...document.querySelectorAll('#routes tbody tr')]"
            ".map(row => [...row.cells].map(cell => cell.textContent))"
        )
        others = list(told["routes_left_out"]["texts"].values())
        assert browser.run(by_route) == [*(list(route["texts"].values()) for route in told["routes"]), others]
        browser.run("document.querySelector('th.errors button').click()")
        by_errors = sorted(told["routes"], key=lambda route: -(route["error_share"] or 0))
        assert browser.run(by_route) == [*(list(route["texts"].values()) for route in by_errors), others]
        assert browser.run("return document.querySelector('th.errors').getAttribute('aria-sort')") == "descending"


@needs_browser
def test_light_and_dark_differ_as_the_reader_prefers(browser: Browser) -> None:
    with Endpoint(status=crowd) as endpoint:
        browser.open(url(endpoint.address))
        colours = {}
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            colours[scheme] = browser.run("return getComputedStyle(document.body).backgroundColor")
    light, dark = (sum(map(int, colours[name][4:-1].split(","))) for name in ("light", "dark"))
    assert light > 600
    assert dark < 150


@pytest.mark.parametrize("shown", [False, True])
def test_paths_are_shown_only_with_the_option_and_queries_never(*, shown: bool) -> None:
    option = ["--metrics-show-paths"] if shown else []
    with Sandbox() as place, PromgunProcess(*option, app="probe:app", sandbox=place) as server:
        with Connection(server.address) as connection:
            connection.socket.sendall(Request("/gate/s3cret?token=hidden").encode("1.1", keepalive=False))
            wait_until((place.directory / "s3cret.waiting").exists)
            text = send(server.metrics_address, path="/status.json").text
            place.write("s3cret", "")
            assert connection.read_response().status == 200
        (request,) = json.loads(text)["workers"][0]["running"]
        assert request.get("path") == ("/gate/s3cret" if shown else None)
        assert ("s3cret" in text) is shown
        assert "hidden" not in text
