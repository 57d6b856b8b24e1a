"""Debian's Prometheus scrapes two real servers every second, with the configuration and the rules that are exported."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Thread
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from promgun.export.grafana import GrafanaOptions, grafana
from promgun.export.kubernetes import KubernetesOptions, kubernetes
from promgun.export.rules import RulesOptions, Thresholds, rules
from promgun.export.scrape import ScrapeOptions, scrape
from tests.support.harness import PromgunProcess, Sandbox, is_alive, wait_until
from tests.support.http_client import Connection, Request, load, send
from tests.support.servers import Prometheus, prometheus
from tests.support.yamls import parse, parse_all

pytestmark = pytest.mark.needs("prometheus", "promtool")

JOB = "shop"
#: Evaluated and scraped every second: what happened is told at once.
QUICK = Thresholds(window="5s", event_window="30s", wait="0s", min_requests=1)
#: Counters of the server, which nothing but its own restart may set back; those of single processes start anew.
LASTING = "gunicorn_(requests|worker_requests|worker_exits|worker_spawns|reloads|worker_busy_seconds)(_lost)?_total"
REQUESTS = "gunicorn_requests_total"


def instance(server: PromgunProcess) -> str:
    """Return the server's instance label: where it is scraped."""
    return "{}:{}".format(*server.metrics_address)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Two servers and the Prometheus that scrapes them."""

    sandbox: Sandbox
    servers: tuple[PromgunProcess, PromgunProcess]
    prometheus: Prometheus

    def expect(self, query: str, expected: Mapping[PromgunProcess, float]) -> None:
        """Wait until a query, by instance, has these answers, and assert that two more scrapes leave them so."""
        wanted = {(instance(server),): value for server, value in expected.items()}
        wait_until(
            lambda: self.prometheus.vector(query, "instance") == wanted,
            message=lambda: f"{query} is {self.prometheus.vector(query, 'instance')}, not {wanted}",
        )
        scrapes = f'count_over_time(up{{job="{JOB}"}}[10m])'
        before = self.prometheus.vector(scrapes, "instance")
        wait_until(
            lambda: all(self.prometheus.vector(scrapes, "instance")[key] >= count + 2 for key, count in before.items())
        )
        assert self.prometheus.vector(query, "instance") == wanted

    def resets(self, name: str) -> dict[tuple[str, ...], float]:
        """Return how often Prometheus saw counters sink, by name and instance; those that never did are left out."""
        # A function drops the name of its series, so each is asked for by itself.
        named = f'label_replace({{__name__=~"{name}", job="{JOB}"}}, "name", "$1", "__name__", "(.+)")'
        names = {one for (one,) in self.prometheus.vector(f"count by (name) ({named})", "name")}
        assert names
        return {
            (one, *key): value
            for one in names
            for key, value in self.prometheus.vector(
                f'sum by (instance) (resets({one}{{job="{JOB}"}}[10m])) > 0', "instance"
            ).items()
        }


@contextmanager
def fleet(*args: str, apps: tuple[str, str] = ("probe:app", "probe:app")) -> Iterator[Fleet]:
    """Start two servers and a Prometheus with what promgun exports for them."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox())
        first, second = (
            stack.enter_context(PromgunProcess(*args, app=app, sandbox=sandbox, workers=2)) for app in apps
        )
        targets = ScrapeOptions(targets=(instance(first), instance(second)), labels=("env=test",), file_sd=True)
        sandbox.write("targets.json", scrape(targets))
        sandbox.write("rules.yml", rules(RulesOptions(job=JOB, labels=("team=web",), thresholds=QUICK)))
        job = ScrapeOptions(job=JOB, files="targets.json", interval="1s", rules="rules.yml")
        config = "global:\n  evaluation_interval: 1s\n" + scrape(job)
        asked = stack.enter_context(prometheus(sandbox, config))
        two = Fleet(sandbox, (first, second), asked)
        wait_until(lambda: asked.scalar(f'sum(up{{job="{JOB}", env="test"}})') == 2)
        yield two


def upgrade(server: PromgunProcess) -> None:
    """Let a new master take over."""
    old = server.master_pid
    server.send_signal(signal.SIGUSR2)
    wait_until(lambda: server.master_pid != old)
    server.expect("gunicorn_workers", 4, state="booted")
    server.send_signal(signal.SIGTERM, old)
    wait_until(lambda: not is_alive(old))


def test_totals_through_recycling_reload_upgrade_and_a_killed_worker() -> None:
    """PromQL answers what the client counted, and no counter sinks until a server is truly started anew."""
    total, by_status = f"sum by (instance) ({REQUESTS})", f'sum by (instance) ({REQUESTS}{{status="%s"}})'
    with fleet("--max-requests", "25") as two:
        first, second = two.servers
        assert load(first.address, 100, path="/ok", keepalive=False) == {200: 100}
        assert load(second.address, 40, path="/status/404", keepalive=False) == {404: 40}
        two.expect(total, {first: 100, second: 40})

        first.send_signal(signal.SIGHUP)
        assert load(first.address, 50, path="/ok", keepalive=False) == {200: 50}
        upgrade(first)
        assert load(first.address, 50, path="/ok", keepalive=False) == {200: 50}
        second.send_signal(signal.SIGKILL, second.workers()[0])
        assert load(second.address, 60, path="/ok", keepalive=False) == {200: 60}
        two.expect(total, {first: 200, second: 100})

        assert two.prometheus.scalar(f"sum({REQUESTS})") == 300
        assert two.prometheus.vector(by_status % 200, "instance") == {(instance(first),): 200, (instance(second),): 60}
        assert two.prometheus.scalar("sum(gunicorn_request_duration_seconds_count)") == 300
        assert two.prometheus.scalar('sum(gunicorn_request_duration_seconds_bucket{le="+Inf"})') == 300
        assert two.prometheus.scalar('sum(gunicorn_worker_exits_total{cause="killed"})') == 1
        assert two.prometheus.scalar('sum(gunicorn_worker_exits_total{cause="max_requests"})') > 0  # type: ignore[operator]
        assert two.resets(LASTING) == {}

        port = second.metrics_address
        assert second.stop() == 0
        with PromgunProcess(app="probe:app", sandbox=two.sandbox, metrics="{}:{}".format(*port)) as anew:
            assert load(anew.address, 10, path="/ok", keepalive=False) == {200: 10}
            two.expect(total, {first: 200, anew: 10})
            assert two.resets(REQUESTS) == {(REQUESTS, instance(anew)): 1}


def test_rules_alerts_and_dashboard() -> None:
    """What is exported works in a real Prometheus on real servers."""
    with fleet("--max-requests", "100000", apps=("probe:app", "tests.apps.routes.both:app")) as two:
        first, second = two.servers
        check_lint(first)
        check_probes(first)
        load(first.address, 20, path="/ok")
        load(first.address, 2, path="/fail/ValueError")
        check_rules(two)

        # Both workers busy, and two requests more than they can take.
        sender = Thread(target=load, args=(first.address, 4), kwargs={"path": "/sleep/4"})
        sender.start()
        saturation = "instance:gunicorn_saturation:ratio"
        wait_until(lambda: two.prometheus.vector(saturation, "instance").get((instance(first),), 0) > 1.2)
        assert two.prometheus.vector(saturation, "instance")[instance(second),] < 0.5
        wait_until(lambda: "GunicornSaturated" in alerts(two, first))
        link = urlsplit(alerts(two, first)["GunicornSaturated"]["annotations"]["routes"])
        assert (link.scheme, link.path) == ("http", "/graph")
        sender.join()
        (query,) = parse_qs(link.query)["g0.expr"]
        wait_until(lambda: two.prometheus.vector(query, "route").get(("",), 0) > 0)

        assert "GunicornWorkersDying" not in alerts(two, first)
        first.send_signal(signal.SIGKILL, first.workers()[0])
        wait_until(lambda: "GunicornWorkersDying" in alerts(two, first))
        alert = alerts(two, first)["GunicornWorkersDying"]
        assert alert["labels"]["cause"] == "killed"
        assert alert["labels"]["team"] == "web"
        assert alert["annotations"]["summary"] == f"Workers of {instance(first)} die: killed"
        assert "SIGKILL" in alert["annotations"]["description"]
        assert "GunicornWorkersDying" not in alerts(two, second)
        check_dashboard(two)


def alerts(two: Fleet, server: PromgunProcess) -> dict[str, Mapping[str, Mapping[str, str]]]:
    """Return the alerts that fire for a server, or for its job, by name."""
    here = (instance(server), None)
    return {
        alert["labels"]["alertname"]: alert
        for alert in two.prometheus.firing()
        if alert["labels"].get("instance") in here
    }


def check_lint(server: PromgunProcess) -> None:
    """Assert that Prometheus' own linter has nothing to say of the page."""
    page = send(server.metrics_address, path="/metrics").text
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def check_probes(server: PromgunProcess) -> None:
    """Assert that what the exported Deployment asks is answered."""
    (container,) = parse_all(kubernetes(KubernetesOptions()))[0]["spec"]["template"]["spec"]["containers"]
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert {path: send(server.metrics_address, path=path).status for path in paths} == dict.fromkeys(paths, 200)


def check_rules(two: Fleet) -> None:
    """Assert that every exported rule was evaluated without an error."""
    (exported,) = parse(rules(RulesOptions()))["groups"]

    def evaluated() -> bool:
        (group,) = two.prometheus.get("rules")["groups"]
        assert [rule["name"] for rule in group["rules"]] == [
            rule.get("alert") or rule["record"] for rule in exported["rules"]
        ]
        assert {rule.get("lastError", "") for rule in group["rules"]} == {""}
        return {rule["health"] for rule in group["rules"]} == {"ok"}

    wait_until(evaluated)


#: Of all queries those that only faults bring about, what only websockets and event loops do, and answers that WSGI
#: cannot give.
MAY_BE_EMPTY = {
    "Late loops: {{instance}} at most",
    "Late loops: {{instance}} per second",
    "Requests by status: 1xx",
    "Requests lost or left without an answer: {{cause}} {{route}}",
    "Requests lost or left without an answer: left: {{reason}} {{route}}",
    "Websockets: open",
    "Websockets: messages {{direction}} a second",
    "Websockets: closed with {{code}} a second",
    "Websockets: {{result}} a second",
    "Websockets: seconds p50",
    "What is missing: {{reason}}",
    "What is missing: folded: {{family}}",
    "What is missing: endpoint refused: {{reason}}",
    "What is missing: web configuration failed: {{instance}}",
}
#: One of each kind of answer.
KINDS = tuple(Request(path) for path in ("/ok", "/status/302", "/status/404", "/fail/ValueError"))


#: One of each kind of answer of a Flask application, and of the Django project that is mounted in it.
ROUTED = tuple(
    Request(path)
    for path in ("/users/5", "/none", "/fails", "/moved", "/django/users/5/", "/django/fails/", "/django/old/2024")
)
OLD = r"/django^old/(?P<year>\d{4})$"
ROUTES = {"", "/users/<int:user>", "/fails", "/moved", "/django/users/<int:user>/", "/django/fails/", OLD}


def check_routes(two: Fleet) -> None:
    """Assert that menu and panels tell the routes of both frameworks apart, also one that is a regular expression."""
    server = instance(two.servers[1])
    selected = quote(f'{REQUESTS}{{job="{JOB}", instance="{server}"}}')
    assert set(two.prometheus.get(f"label/route/values?match[]={selected}")) == ROUTES - {""}
    panels = {panel["title"]: panel for panel in json.loads(grafana(GrafanaOptions()))["panels"]}

    def shown(title: str, route: str = ".*") -> dict[str, float]:
        query = panels[title]["targets"][0]["expr"]
        values = {"$job": JOB, "$instance": server, "$route": route, "$__rate_interval": "1m", "$__range": "5m"}
        for name, value in values.items():
            query = query.replace(name, value)
        found = two.prometheus.vector(query, "route", "method")
        return {key[0]: value for key, value in found.items() if value and key[1] in {"", "GET"}}

    def under_load(title: str) -> set[str]:
        # A rate needs a series to rise after its first scrape.
        load(two.servers[1].address, ROUTED)
        return set(shown(title))

    for title in ("CPU by route", "Busy by route", "p99 by route"):
        wait_until(lambda title=title: under_load(title) == ROUTES)  # type: ignore[misc] # bound now
    assert shown("Error share by route") == {"/fails": 1.0, "/django/fails/": 1.0}
    # Grafana escapes a chosen value like this for =~ in a string of PromQL.
    chosen = re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", OLD.replace("\\", "\\" * 4))
    assert set(shown("Requests by route", chosen)) == {OLD}


def check_dashboard(two: Fleet) -> None:
    """Assert that every query of the dashboard is answered, and which of them have nothing to say of busy servers."""
    variables = {"$job": JOB, "$instance": ".+", "$route": ".*", "$__rate_interval": "1m", "$__range": "5m"}
    second = two.servers[1]
    second.send_signal(signal.SIGHUP)
    second.expect("gunicorn_reloads_total", 1)

    def empty() -> set[str]:
        for server, kinds in zip(two.servers, (KINDS, ROUTED), strict=True):
            load(server.address, kinds)
            with Connection(server.address) as connection:
                connection.socket.sendall(b"no request\r\n\r\n")
                assert connection.read_response().status == 400
        found = set()
        for panel in json.loads(grafana(GrafanaOptions()))["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"]
                for name, value in variables.items():
                    query = query.replace(name, value)
                if not two.prometheus.get(f"query?query={quote(query)}")["result"]:
                    found.add(f"{panel['title']}: {target['legendFormat']}")
        return found

    wait_until(lambda: empty() <= MAY_BE_EMPTY, message=lambda: f"no answers to {sorted(empty() - MAY_BE_EMPTY)}")
    check_routes(two)
