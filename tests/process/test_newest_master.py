"""After two SIGUSR2 every place tells of the newest master, while the one before still drains and afterwards."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from threading import Thread
from typing import Any

import psutil
import pytest

from tests.support.harness import Page, PromgunProcess, is_alive, wait_until
from tests.support.http_client import Response, send

pytestmark = pytest.mark.seam

OLD = 'worker_class = "sync"\nproc_name = "old"\n'
#: Tells the newest master from the others by all that is shown of it: type, name, CPU time and memory.
NEW = """
import sys
import time

worker_class = "gthread"
threads = 3
proc_name = "new"
if not hasattr(sys, "ballast"):
    sys.ballast = b"x" * (96 << 20)
    end = time.process_time() + 1.5
    while time.process_time() < end:
        pass
"""
BALLAST = 96 << 20
BURNT = 1.5
#: Seconds of CPU that a master uses at most from the scrape before it is followed to the moment when it has been.
BETWEEN = 0.5
MASTER_MEMORY = "gunicorn_master_resident_memory_bytes"
MASTER_CPU = "gunicorn_master_cpu_seconds_total"
RELOADED = "gunicorn_last_reload_timestamp_seconds"


@dataclass(frozen=True)
class Newest:
    """What is true of the newest master, and since when: no uptime of it is longer than since ``asked``.

    ``earlier``: seconds of CPU that the page told of the masters before it, which its counter goes on from.
    """

    pid: int
    asked: float
    earlier: float

    def check_page(self, page: Page, reloaded_after: float | None) -> None:
        """Check the families that tell of one master."""
        assert page.by("worker_type", "gunicorn_info") == {"gthread": 1}
        uptime = page.value("gunicorn_master_uptime_seconds")
        assert uptime is not None
        assert 0 < uptime <= time.monotonic() - self.asked
        assert page.sum(MASTER_MEMORY) > BALLAST
        own = sum(psutil.Process(self.pid).cpu_times()[:2])
        assert BURNT < page.sum(MASTER_CPU) - self.earlier <= own + BETWEEN
        reload_time = page.value(RELOADED)
        if reloaded_after is None:
            assert reload_time is None, "the newest master has not been reloaded, whatever those before it were"
        else:
            assert reload_time is not None
            assert int(reloaded_after) <= reload_time <= time.time()

    def check_status(self, instance: dict[str, Any]) -> None:
        """Check the same of ``/status.json``."""
        assert (instance["worker_type"], instance["name"]) == ("gthread", "new")
        assert 0 < instance["uptime_seconds"] <= time.monotonic() - self.asked

    def check_ps(self, listed: list[dict[str, Any]]) -> None:
        """Check the same of ``promgun ps``, which has a line for each master."""
        (entry,) = [run for run in listed if run["pid"] == self.pid]
        assert entry["worker_type"] == "gthread"
        assert 0 < entry["uptime_seconds"] <= time.monotonic() - self.asked + 1


def start_master(server: PromgunProcess) -> int:
    """Send SIGUSR2 to the newest master; return the pid of the one that it starts, once its workers serve."""
    before = server.master_pid
    server.send_signal(signal.SIGUSR2)
    new = wait_until(lambda: server.master_pid if server.master_pid != before else None)
    wait_until(lambda: server.scrape().by("state", "gunicorn_workers") == {"target": 4, "alive": 4, "booted": 4})
    return new


def reload(server: PromgunProcess, count: int) -> float:
    """Reload the newest master; return the time before."""
    before = time.time()
    server.send_signal(signal.SIGHUP)
    server.expect("gunicorn_reloads_total", count, result="ok")
    wait_until(lambda: (server.scrape().value(RELOADED) or 0) >= int(before))
    return before


def ps(server: PromgunProcess, *args: str) -> list[dict[str, Any]]:
    """Return what ``promgun ps`` lists."""
    done = server.sandbox.run("-m", "promgun", "ps", "--format", "json", *args)
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, Any]] = json.loads(done.stdout)
    return listed


def check_everywhere(server: PromgunProcess, newest: Newest, reloaded_after: float | None) -> None:
    """Check every place, served ones several times: two metrics processes answer on one address in turns."""
    for _ in range(6):
        newest.check_page(server.scrape(), reloaded_after)
        newest.check_status(json.loads(send(server.metrics_address, path="/status.json").text)["instance"])
    newest.check_page(server.dump(), reloaded_after)
    newest.check_ps(ps(server))


def test_every_place_tells_of_the_newest_master() -> None:
    with PromgunProcess(app="probe:app", config=OLD, workers=2) as server:
        first = server.master_pid
        reload(server, 1)
        second = start_master(server)
        server.send_signal(signal.SIGTERM, first)
        wait_until(lambda: not is_alive(first))
        wait_until(lambda: "Master has been promoted" in server.log)
        answers: list[Response] = []
        address = server.address
        held = Thread(target=lambda: answers.append(send(address, path="/gate/held", timeout=60)))
        held.start()
        wait_until(lambda: server.scrape().sum("gunicorn_worker_requests_in_progress") == 1)
        server.sandbox.write("gunicorn.conf.py", NEW)
        earlier = server.scrape().sum(MASTER_CPU)
        asked = time.monotonic()
        newest = Newest(start_master(server), asked, earlier)
        draining = server.workers(second)
        server.send_signal(signal.SIGTERM, second)
        wait_until(lambda: server.scrape().by("state", "gunicorn_worker_state").get("draining") == 1)
        check_everywhere(server, newest, None)
        assert is_alive(second)
        assert {run["pid"] for run in ps(server)} == {second, newest.pid}
        assert any(map(is_alive, draining))

        server.sandbox.write("held", "")
        held.join(30)
        assert [answer.status for answer in answers] == [200]
        wait_until(lambda: not is_alive(second))
        check_everywhere(server, newest, None)
        assert {run["pid"] for run in ps(server)} == {newest.pid}
        workers = set(server.workers())
        assert {entry["pid"] for entry in ps(server, "--requests")} == workers
        check_everywhere(server, newest, reload(server, 2))
