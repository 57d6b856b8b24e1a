"""Worker classes whose application is not WSGI serve as under plain Gunicorn, unmeasured."""

from __future__ import annotations

import signal

import pytest

from tests.support.harness import GUNICORN, PROMGUN, PromgunProcess, Sandbox, wait_until
from tests.support.http_client import send

CLASSES = {
    "uvicorn_worker.UvicornWorker": "async_apps:starlette",
    "aiohttp.GunicornWebWorker": "async_apps:aiohttp",
    "asgi": "async_apps:starlette",
}
UNMEASURED = "aiohttp.GunicornWebWorker"
WARNING = "its requests are not measured"


def test_serves_reloads_and_stops_unmeasured() -> None:
    with PromgunProcess("-k", UNMEASURED, app=CLASSES[UNMEASURED], workers=2) as server:
        for _ in range(20):
            answer = send(server.address, path="/")
            assert answer.status == 200
            assert int(answer.body) in server.workers()
        assert server.log.count(WARNING) == 1
        server.expect("gunicorn_workers", 2, state="booted")
        before = set(server.workers())
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: len(server.workers()) == 2 and not before & set(server.workers()))
        server.expect("gunicorn_worker_exits_total", 2, cause="reload")
        server.expect("gunicorn_workers", 2, state="booted")
        assert send(server.address, path="/").status == 200
        page = server.fresh()
        assert page.sum("gunicorn_worker_exits_total") == 2
        assert page.sum("gunicorn_master_signals_total", signal="hup") == 1
        assert page.sum("gunicorn_worker_state", state="idle") == 2
        assert list(page.select("gunicorn_worker_capacity")) == []
        assert page.sum("gunicorn_worker_requests_in_progress") == 0
        assert page.sum("gunicorn_requests_total") == 0
        assert server.log.count(WARNING) == 1
        assert "Traceback" not in server.log
        assert server.stop() == 0


@pytest.mark.parametrize("worker_class", CLASSES)
def test_a_worker_that_beats_as_gunicorn_asks_is_never_shown_as_hung(worker_class: str) -> None:
    """A beat each half timeout, and a quarter more until it counts as hung: time for a busy machine."""
    with PromgunProcess("-k", worker_class, "--timeout", "6", app=CLASSES[worker_class]) as server:
        server.expect("gunicorn_workers", 1, state="booted")
        beats: list[float] = []

        def three_beats() -> bool:
            page = server.scrape()
            assert page.sum("gunicorn_worker_state", state="hung") == 0
            uptime = page.sum("gunicorn_worker_uptime_seconds")
            beat = uptime - page.sum("gunicorn_worker_heartbeat_age_seconds")
            if not beats or beat > beats[-1] + 0.5:
                beats.append(beat)
            return len(beats) >= 3 and uptime > 6

        wait_until(three_beats)


@pytest.mark.parametrize("worker_class", ["uvicorn_worker.UvicornWorker", "asgi"])
def test_an_application_that_refuses_to_start_ends_the_server_as_under_plain_gunicorn(
    sandbox: Sandbox, worker_class: str
) -> None:
    codes = []
    for command in (PROMGUN, GUNICORN):
        own = ("--no-metrics-server",) if command is PROMGUN else ()
        ran = sandbox.run(*command, "-k", worker_class, "-b", "127.0.0.1:0", *own, "async_apps:unwilling")
        codes.append(ran.returncode)
    assert codes == [3, 3]


def test_a_server_that_counts_its_requests_itself_ends_by_their_number() -> None:
    with PromgunProcess(
        "-k", "uvicorn_worker.UvicornWorker", "--max-requests", "3", app=CLASSES["uvicorn_worker.UvicornWorker"]
    ) as server:
        for _ in range(3):
            assert send(server.address, path="/").status == 200
        server.expect("gunicorn_worker_exits_total", 1, cause="max_requests")
