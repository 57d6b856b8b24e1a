"""Excluded routes, grouped statuses and constant labels, in a server and across SIGHUP."""

from __future__ import annotations

import signal

from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import send

REQUESTS = "gunicorn_requests_total"
CPU = "gunicorn_request_cpu_seconds_total"
CONFIG = """
metrics_group_status = True
metrics_label = ["zone=eu", "team=shop"]
metrics_request_cpu = False
"""


def test_a_reload_changes_at_once_how_all_is_shown() -> None:
    with Sandbox() as sandbox, PromgunProcess(app="probe:app", sandbox=sandbox, config=CONFIG) as server:
        for path in ("/ok", "/status/404", "/status/410", "/status/404"):
            send(server.address, path=path)
        server.expect(REQUESTS, 4)
        page = server.scrape()
        assert page.by("status", REQUESTS) == {"2xx": 1, "4xx": 3}
        ours = [sample for sample in page.samples if sample.name.startswith(("gunicorn_", "promgun_"))]
        assert {(sample.labels["zone"], sample.labels["team"]) for sample in ours} == {("eu", "shop")}
        # The commands read the store themselves.
        assert server.dump().by("status", REQUESTS) == {"2xx": 1, "4xx": 3}
        assert server.dump().by("zone", REQUESTS) == {"eu": 4}
        sandbox.write("gunicorn.conf.py", "metrics_label = 'zone=us'\n")
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.scrape().by("zone", REQUESTS) == {"us": 4})
        page = server.scrape()
        assert page.by("status", REQUESTS) == {"200": 1, "404": 2, "410": 1}
        assert not page.select(CPU)
        send(server.address, path="/ok")
        server.expect(REQUESTS, 5)
        assert server.scrape().sum(CPU, route="") > 0
        assert all("team" not in sample.labels for sample in page.samples)
