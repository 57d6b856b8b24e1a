"""What is exported asks only for series and labels that the contract has, in ways that can match."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from promgun.export.alerts import DEATHS
from promgun.export.autoscaling import Scaling, adapter_rule, keda_query
from promgun.export.emitter import to_yaml
from promgun.export.grafana import RELOADS, VARIABLES, GrafanaOptions, grafana
from promgun.export.rules import RulesOptions, rules
from promgun.metrics.catalog import CATALOG
from promgun.metrics.label_values import ExitCause
from promgun.metrics.spec import MetricSpec
from tests.support.promql import Mismatch, Series, check
from tests.support.yamls import parse

ROOT = Path(__file__).parents[2]
TARGET = ("job", "instance")


def series_of(spec: MetricSpec) -> Iterator[tuple[str, Series]]:
    """Give every series of a family, as the text format names them."""
    labels = frozenset(spec.labels)
    if spec.kind == "histogram":
        yield f"{spec.name}_bucket", Series(labels | {"le"}, "counter", spec.closed)
        yield f"{spec.name}_sum", Series(labels, "counter", spec.closed)
        yield f"{spec.name}_count", Series(labels, "counter", spec.closed)
    else:
        yield spec.name, Series(labels, spec.kind, spec.closed)


SERIES: Mapping[str, Series] = {
    # What Prometheus itself adds to each target.
    "up": Series(frozenset(), "gauge"),
    **{name: series for spec in CATALOG for name, series in series_of(spec)},
}
DASHBOARD: dict[str, Any] = json.loads(grafana(GrafanaOptions()))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel, target) for panel in PANELS for target in panel["targets"]]


def exported_rules(*by: str) -> list[dict[str, Any]]:
    (group,) = parse(rules(RulesOptions(by=by)))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@pytest.mark.parametrize("by", [(), ("cluster", "namespace")], ids=["plain", "by cluster"])
def test_rules(by: tuple[str, ...]) -> None:
    series = dict(SERIES)
    for rule in exported_rules(*by):
        shape = check(rule["expr"], series, (*TARGET, *by))
        assert shape.labels is not None
        labels = shape.labels | rule.get("labels", {}).keys()
        assert {"job"} <= labels
        if "record" in rule:
            assert {*by} <= labels
            series[rule["record"]] = Series(labels, "gauge", scraped=False)
        else:
            text = " ".join(rule["annotations"].values())
            assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels, rule["alert"]
            link = re.fullmatch(r"{{ externalURL }}{{ graphLink (.*) }}", rule["annotations"].get("routes", ""))
            if link is not None:
                assert check(json.loads(link[1]), series, TARGET).labels == frozenset({"route"}), rule["alert"]


def test_every_recorded_series_of_a_query_was_recorded_before_it() -> None:
    with pytest.raises(Mismatch, match="no series instance:gunicorn_demand:sum"):
        check("instance:gunicorn_demand:sum", SERIES, TARGET)


def test_every_unclean_end_has_its_alert() -> None:
    assert set(DEATHS) == {cause for cause in ExitCause if cause.unclean}


@pytest.mark.parametrize(("panel", "target"), TARGETS, ids=[f"{p['title']} {t['refId']}" for p, t in TARGETS])
def test_panels(panel: dict[str, Any], target: dict[str, Any]) -> None:
    shape = check(target["expr"], SERIES, TARGET)
    assert shape.labels is not None, panel["title"]
    assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= shape.labels
    if panel["type"] != "table" and len(panel["targets"]) == 1:
        # A legend that leaves out a label gives several series one name.
        assert panel["type"] == "stat" or set(re.findall(r"{{(\w+)}}", target["legendFormat"])) == shape.labels


def test_the_dashboard_shows_every_family() -> None:
    shown = {name for _, target in TARGETS for name in check(target["expr"], SERIES, TARGET).names}
    absent = [spec.name for spec in CATALOG if shown.isdisjoint(name for name, _ in series_of(spec))]
    assert absent == []


def test_annotation() -> None:
    assert check(RELOADS, SERIES, TARGET).labels == frozenset({"instance"})


@pytest.mark.parametrize(("name", "query"), [(name, query) for name, _, query in VARIABLES])
def test_variables(name: str, query: str) -> None:
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    assert match is not None
    assert match[2] == name
    labels = check(match[1], SERIES, TARGET).labels
    assert labels is not None
    assert name in labels


def test_autoscaling() -> None:
    (rule,) = parse(to_yaml(adapter_rule(Scaling())))
    query = (
        rule["metricsQuery"]
        .replace("<<.GroupBy>>", "namespace, pod")
        .replace("<<.LabelMatchers>>", 'pod=~"web-1|web-2"')
    )
    pods = (*TARGET, "namespace", "pod")
    assert check(query, SERIES, pods).labels == frozenset({"namespace", "pod"})
    assert check(rule["seriesQuery"], SERIES, pods).labels is not None
    assert check(keda_query(Scaling(), "web", "shop"), SERIES, pods).labels == frozenset()
    assert check(keda_query(Scaling(), "web", None), SERIES, pods).labels == frozenset()


def documented() -> Iterator[tuple[str, str]]:
    """Give every query in the text of the pages that people write, with the page's name."""
    for page in [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "docs/how-to").glob("*.md")),
    ]:
        text = page.read_text()
        spans = [span for line in text.splitlines() for span in re.findall(r"`([^`]+)`", line)]
        blocks = re.findall(r"```promql\n(.*?)```", text, re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines() if not line.startswith("#")]
        yield from ((page.name, one) for one in (*spans, *lines) if "gunicorn_" in one and "(" in one)


@pytest.mark.parametrize(("page", "query"), tuple(documented()))
def test_queries_of_the_documentation(page: str, query: str) -> None:
    assert check(query, SERIES, (*TARGET, "pod")).labels is not None, page


@pytest.mark.needs("promtool")
def test_prometheus_can_read_the_dashboard(tmp_path: Path) -> None:
    exprs = sorted({target["expr"] for _, target in TARGETS} | {RELOADS})
    spans = {"$__rate_interval": "5m", "$__range": "1h"}
    queries = [re.sub("|".join(map(re.escape, spans)), lambda match: spans[match[0]], expr) for expr in exprs]
    file = tmp_path / "rules.yml"
    recorded = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file.write_text(to_yaml({"groups": [{"name": "panels", "rules": recorded}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(queries)} rules found" in done.stdout


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("gunicorn_request_total", "no series"),
        ("gunicorn_request_duration_seconds", "no series"),
        ('gunicorn_requests_total{code="500"}', "has no label code"),
        ('gunicorn_worker_exits_total{cause="sigkill"}', "cause is never"),
        ('gunicorn_worker_exits_total{cause=~"oom|sigkill"}', "cause is never"),
        ("sum by (worker) (gunicorn_worker_capacity)", "no labels"),
        ("sum by (route) (sum by (job) (gunicorn_requests_total))", "no labels"),
        ("rate(gunicorn_up[5m])", "rate of"),
        ("rate(gunicorn_requests_total)", "rate of"),
        ("deriv(gunicorn_requests_total[5m])", "deriv of"),
        ("gunicorn_requests_total[5m]", "a range"),
        ("gunicorn_worker_capacity / sum by (job) (gunicorn_worker_capacity)", "never match"),
        ("gunicorn_up and gunicorn_worker_capacity", "never match"),
        ('gunicorn_workers{state="alive"} - ignoring (job) gunicorn_up', "never match"),
        ("gunicorn_up and on (worker_id) gunicorn_worker_capacity", "on "),
        ("histogram_quantile(0.9, sum(rate(gunicorn_request_duration_seconds_bucket[5m])))", "without le"),
        ("sum(gunicorn_up", "in place of"),
        ("gunicorn_up gunicorn_up", "nothing is known"),
        ("gunicorn_up & gunicorn_up", "unreadable"),
    ],
)
def test_what_is_wrong_is_found(query: str, reason: str) -> None:
    with pytest.raises(Mismatch, match=reason):
        check(query, SERIES, TARGET)
