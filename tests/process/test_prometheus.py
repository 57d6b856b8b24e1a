"""Debian's Prometheus scrapes two real servers every second, with the configuration and the rules that are exported."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from promgun.export.rules import RulesOptions, Thresholds, rules
from promgun.export.scrape import ScrapeOptions, scrape
from tests.harness import PromgunProcess, Sandbox, is_alive, wait_until
from tests.http_client import NO_ANSWER, Request, load, send
from tests.servers import Prometheus, prometheus

pytestmark = pytest.mark.needs("prometheus", "promtool")

JOB = "shop"
#: Evaluated and scraped every second; what happened is seen at once and forgotten soon.
QUICK = Thresholds(window="5s", event_window="30s", wait="0s", min_requests=1)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Two servers and the Prometheus that scrapes them."""

    servers: tuple[PromgunProcess, PromgunProcess]
    prometheus: Prometheus

    def instances(self) -> list[str]:
        """Return the instance label of each server."""
        return [f"{server.metrics_address[0]}:{server.metrics_address[1]}" for server in self.servers]

    def settle(self, name: str, expected: list[float], labels: str = "") -> None:
        """Wait until Prometheus has the values of the two servers, and assert that later scrapes leave them so."""
        query = f'sum by (instance) ({name}{{job="{JOB}"{labels}}})'
        wanted = {(instance,): value for instance, value in zip(self.instances(), expected, strict=True)}
        wait_until(
            lambda: self.prometheus.vector(query, "instance") == wanted,
            message=lambda: f"{query}: {wanted}, it is {self.prometheus.vector(query, 'instance')}",
        )
        self.scraped_again()
        assert self.prometheus.vector(query, "instance") == wanted

    def scraped_again(self) -> None:
        """Wait for another scrape of both."""
        scrapes = f'count_over_time(up{{job="{JOB}"}}[5m])'
        before = self.prometheus.vector(scrapes, "instance")
        wait_until(
            lambda: all(
                count >= before[instance] + 2
                for instance, count in self.prometheus.vector(scrapes, "instance").items()
            )
        )

    def resets(self) -> dict[str, float]:
        """Return the counters that Prometheus ever saw sink, and how often; those of one process are not asked for."""
        names = 'gunicorn_(requests|worker_requests|worker_exits|worker_spawns|reloads|worker_busy_seconds).*_total'
        found = self.prometheus.vector(f'resets({{__name__=~"{names}", job="{JOB}"}}[10m]) > 0', "instance")
        return {instance: count for (instance,), count in found.items()}


@contextmanager
def fleet(*args: str, thresholds: Thresholds = QUICK) -> Iterator[Fleet]:
    """Start two servers and a Prometheus with what promgun exports for them."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox())
        servers = [
            stack.enter_context(PromgunProcess(*args, app="probe:app", sandbox=sandbox, workers=2)) for _ in range(2)
        ]
        targets = tuple(f"{server.metrics_address[0]}:{server.metrics_address[1]}" for server in servers)
        sandbox.write("rules.yml", rules(RulesOptions(job=JOB, labels=("team=web",), thresholds=thresholds)))
        sandbox.write("targets.json", scrape(ScrapeOptions(targets=targets, labels=("env=test",), file_sd=True)))
        job = ScrapeOptions(job=JOB, files="targets.json", interval="1s", rules="rules.yml")
        config = "global:\n  evaluation_interval: 1s\n" + scrape(job)
        asked = stack.enter_context(prometheus(sandbox, config))
        wait_until(lambda: asked.scalar(f'sum(up{{job="{JOB}"}})') == 2)
        yield Fleet((servers[0], servers[1]), asked)


def test_totals_through_recycling_reload_upgrade_and_a_killed_worker() -> None:
    """What the client counted is what PromQL answers, and no counter ever sinks."""
    with fleet("--max-requests", "25", "--max-requests-jitter", "5") as two:
        first, second = two.servers
        total = "gunicorn_requests_total"
        assert load(first.address, 100, path="/ok", keepalive=False) == {200: 100}
        assert load(second.address, 40, path="/status/404", keepalive=False) == {404: 40}
        two.settle(total, [100, 40])
        two.settle(total, [0, 40], ', status="404"') if False else None

        first.send_signal(signal.SIGHUP)
        assert load(first.address, 50, path="/ok", keepalive=False) == {200: 50}
        two.settle(total, [150, 40])

        old = first.master_pid
        first.send_signal(signal.SIGUSR2)
        wait_until(lambda: first.master_pid != old)
        first.expect("gunicorn_workers", 4, state="booted")
        first.send_signal(signal.SIGTERM, old)
        wait_until(lambda: not is_alive(old))
        assert load(first.address, 50, path="/ok", keepalive=False) == {200: 50}

        second.send_signal(signal.SIGKILL, second.workers()[0])
        assert load(second.address, 60, path="/ok", keepalive=False)[200] >= 59
        two.settle(total, [200, 100])
        assert two.resets() == {}
