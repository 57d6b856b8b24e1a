"""The exported scrape job and targets, as Prometheus' own tool judges them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from promgun.errors import UsageError
from promgun.export.rules import RulesOptions, rules
from promgun.export.scrape import ScrapeOptions, scrape
from tests.support.yamls import parse

MANY = ("web-1.example:9164", "[::1]:9164")


def jobs(options: ScrapeOptions) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parse(scrape(options))["scrape_configs"]
    return found


def test_job() -> None:
    assert jobs(ScrapeOptions(job="shop", targets=MANY, labels=("env=a b",))) == [
        {
            "job_name": "shop",
            "scrape_interval": "15s",
            "static_configs": [{"targets": list(MANY), "labels": {"env": "a b"}}],
        }
    ]


def test_default_is_where_promgun_run_serves() -> None:
    (job,) = jobs(ScrapeOptions())
    assert job["static_configs"] == [{"targets": ["127.0.0.1:9164"]}]


def test_targets_for_service_discovery() -> None:
    text = scrape(ScrapeOptions(targets=MANY, labels=("env=production",), file_sd=True))
    assert json.loads(text) == [{"targets": list(MANY), "labels": {"env": "production"}}]


def test_timeout_is_not_above_the_interval() -> None:
    assert jobs(ScrapeOptions(interval="5s"))[0]["scrape_timeout"] == "5s"
    assert "scrape_timeout" not in jobs(ScrapeOptions(interval="10s"))[0]


def test_pushed_metrics_keep_their_labels() -> None:
    _, pushed = jobs(ScrapeOptions(push_gateway="push.example:9091"))
    assert pushed["honor_labels"] is True
    assert pushed["static_configs"] == [{"targets": ["push.example:9091"]}]


@pytest.mark.needs("promtool")
@pytest.mark.parametrize(
    "options",
    [
        ScrapeOptions(rules="rules.yml"),
        ScrapeOptions(job='a "b"', targets=MANY, labels=("env=x: y",), interval="1s", push_gateway="[::1]:9091"),
        ScrapeOptions(files="targets.json"),
    ],
    ids=["default", "everything", "files"],
)
def test_prometheus_takes_it(options: ScrapeOptions, tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(scrape(options))
    (tmp_path / "rules.yml").write_text(rules(RulesOptions()))
    (tmp_path / "targets.json").write_text(scrape(ScrapeOptions(targets=MANY, labels=("a=b",), file_sd=True)))
    command = ["promtool", "check", "config", "prometheus.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prometheus.yml is valid" in done.stdout
    assert ("rules found" in done.stdout) is bool(options.rules)


@pytest.mark.parametrize(
    "options",
    [ScrapeOptions(targets=("unix:/m.sock",)), ScrapeOptions(interval="0s"), ScrapeOptions(push_gateway="http://a:1")],
)
def test_what_cannot_be(options: ScrapeOptions) -> None:
    with pytest.raises(UsageError):
        scrape(options)
