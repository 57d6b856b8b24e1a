"""Excluded routes, grouped statuses and constant labels, in a server and across SIGHUP."""

from __future__ import annotations

import json
import signal

from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import send

REQUESTS = "gunicorn_requests_total"
CPU = "gunicorn_request_cpu_seconds_total"


def routes_of_status(server: PromgunProcess) -> list[str]:
    """Return the routes of the status page; there are none in its first answer."""
    told = json.loads(send(server.metrics_address, path="/status.json").text)
    return sorted(route["route"] for route in told["routes"])


CONFIG = """
metrics_exclude_route = ["/health/*"]
metrics_group_status = True
metrics_label = ["zone=eu", "team=shop"]
metrics_request_cpu = False
"""
#: Has each read of a thread's CPU clock told in the worker's output.
READS_TOLD = """
import sys

def told(frame, event, function):
    if event == "c_call" and function.__name__ == "thread_time_ns":
        print("a thread's clock was read", flush=True)

def post_worker_init(worker):
    sys.setprofile(told)
"""


def test_a_reload_changes_at_once_how_all_is_shown() -> None:
    with Sandbox() as sandbox, PromgunProcess(app="probe:app", sandbox=sandbox, config=CONFIG + READS_TOLD) as server:
        for path in ("/named/health", "/named/shop", "/status/404", "/status/410", "/status/404"):
            send(server.address, path=path)
        server.expect(REQUESTS, 5)
        page = server.scrape()
        assert page.by("status", REQUESTS) == {"2xx": 2, "4xx": 3}
        ours = [sample for sample in page.samples if sample.name.startswith(("gunicorn_", "promgun_"))]
        assert {(sample.labels["zone"], sample.labels["team"]) for sample in ours} == {("eu", "shop")}
        assert page.by("route", REQUESTS) == {"": 4, "/shop/{id}": 1}
        assert page.sum("gunicorn_worker_requests_total") == 5
        # The commands read the store themselves.
        assert server.dump().by("status", REQUESTS) == {"2xx": 2, "4xx": 3}
        assert server.dump().by("zone", REQUESTS) == {"eu": 5}
        assert server.dump().by("route", REQUESTS) == {"": 4, "/shop/{id}": 1}
        table = sandbox.run("-m", "promgun", "metrics", "dump", "--format", "table").stdout
        assert {"/shop/{id}", "(no", "ROUTE"} <= {line.split()[0] for line in table.splitlines() if line}
        assert "health" not in table
        assert "clock was read" not in server.log
        sandbox.write("gunicorn.conf.py", "metrics_label = 'zone=us'\n" + READS_TOLD)
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.scrape().by("zone", REQUESTS) == {"us": 5})
        page = server.scrape()
        assert page.by("status", REQUESTS) == {"200": 2, "404": 2, "410": 1}
        assert page.by("route", REQUESTS) == {"": 3, "/health/{id}": 1, "/shop/{id}": 1}
        assert not page.select(CPU)
        send(server.address, path="/ok")
        server.expect(REQUESTS, 6)
        assert server.scrape().sum(CPU, route="") > 0
        assert server.log.count("clock was read") == 2
        wait_until(lambda: routes_of_status(server) == ["", "/health/{id}", "/shop/{id}"])
        assert all("team" not in sample.labels for sample in page.samples)
