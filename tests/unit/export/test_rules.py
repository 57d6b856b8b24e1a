"""The exported rules, as Prometheus' own tool judges them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promgun.errors import UsageError
from promgun.export.emitter import Node, to_yaml
from promgun.export.rules import RulesOptions, Thresholds, rules
from tests.support.rule_cases import CASES, A, B, Case, requests, workers
from tests.support.yamls import parse


def promtool(tmp_path: Path, *words: str, text: str = "", options: RulesOptions | None = None) -> tuple[int, str]:
    """Run promtool beside a rule file ``rules.yml``; ``text`` is written to the file that the last word names."""
    (tmp_path / "rules.yml").write_text(rules(options or RulesOptions()))
    if text:
        (tmp_path / words[-1]).write_text(text)
    done = subprocess.run(["promtool", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def braces(labels: Mapping[str, str]) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in labels.items() if value)


def judge(alert: str, severity: str, case: Case) -> Node:
    """Return a case as promtool reads it: the series that Prometheus keeps of alerts tells whether one fires."""
    told: list[Node] = []
    if case.fires is not None:
        labels = {"alertname": alert, "alertstate": "firing", "severity": severity} | dict(case.fires)
        told = [{"labels": f"ALERTS{{{braces(labels | {'job': 'promgun', 'instance': case.instance})}}}", "value": 1}]
    return {
        "name": f"{alert}: {case.name}",
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{alert}", alertstate="firing"}}',
                "eval_time": f"{case.minute}m",
                "exp_samples": told,
            }
        ],
    }


def cases_file(*tests: Node) -> str:
    return to_yaml({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": list(tests)})


@pytest.mark.needs("promtool")
def test_alerts_fire_and_do_not(tmp_path: Path) -> None:
    text = cases_file(*(judge(alert, cases.severity, case) for alert, cases in CASES.items() for case in cases.cases))
    code, said = promtool(tmp_path, "test", "rules", "cases.yml", text=text)
    assert code == 0, said


@pytest.mark.needs("promtool")
def test_a_case_that_does_not_hold_is_told(tmp_path: Path) -> None:
    case = next(case for case in CASES["GunicornStuckRequest"].cases if case.fires is None)
    text = cases_file(judge("GunicornStuckRequest", "warning", replace(case, fires={})))
    code, said = promtool(tmp_path, "test", "rules", "cases.yml", text=text)
    assert code != 0
    assert "GunicornStuckRequest" in said
    assert "got: nil" in said


def test_every_alert_has_cases_of_both_kinds() -> None:
    (group,) = parse(rules(RulesOptions()))["groups"]
    exported = {rule["alert"]: rule for rule in group["rules"] if "alert" in rule}
    assert exported.keys() == CASES.keys()
    for alert, cases in CASES.items():
        assert {case.fires is None for case in cases.cases} == {True, False}, alert
        assert exported[alert]["labels"]["severity"] == cases.severity


@pytest.mark.needs("promtool")
def test_what_is_recorded(tmp_path: Path) -> None:
    """Two servers of two workers: one half busy with a websocket, one wholly with two connections waiting."""
    series = workers("0+30x20", "0x20") | workers("0+60x20", "2x20", on=B) | requests("200", "0+60x20")
    series[f'gunicorn_websocket_connections{{{A}, worker_id="1"}}'] = "1x20"
    expected: dict[str, dict[str, float]] = {
        "instance:gunicorn_utilisation:ratio": {"a:9164": 0.5, "b:9164": 1},
        "instance:gunicorn_saturation:ratio": {"a:9164": 1, "b:9164": 2},
        "job:gunicorn_saturation:ratio": {"": 1.5},
        "instance:gunicorn_capacity:sum": {"a:9164": 2, "b:9164": 2},
        "instance:gunicorn_requests:rate": {"a:9164": 1},
        "instance:gunicorn_request_errors:ratio": {"a:9164": 0},
        "job:gunicorn_request_errors:ratio": {"": 0},
    }
    asked: list[Node] = [
        {
            "expr": name,
            "eval_time": "10m",
            "exp_samples": [
                {"labels": f"{name}{{{braces({'job': 'promgun', 'instance': instance})}}}", "value": value}
                for instance, value in values.items()
            ],
        }
        for name, values in expected.items()
    ]
    inputs = [{"series": one, "values": values} for one, values in series.items()]
    text = cases_file({"interval": "1m", "input_series": inputs, "promql_expr_test": asked})
    code, said = promtool(tmp_path, "test", "rules", "cases.yml", text=text)
    assert code == 0, said


OPTIONS = RulesOptions(
    job='we"b\\',
    by=("cluster", "cluster", "job"),
    labels=("team=we & {{ $labels.job }}", "severity=page"),
    thresholds=Thresholds(window="1m", wait="0s", slow_quantile=0.9, error_share=0.5, memory_window="90m"),
)


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("options", [RulesOptions(), OPTIONS], ids=["default", "changed"])
def test_prometheus_takes_them(options: RulesOptions, tmp_path: Path) -> None:
    code, said = promtool(tmp_path, "check", "rules", "rules.yml", options=options)
    assert code == 0, said
    assert "SUCCESS" in said


def exported(options: RulesOptions) -> dict[str, dict[str, Any]]:
    """Return the rules by name; of several of one name the last."""
    (group,) = parse(rules(options))["groups"]
    return {rule.get("alert") or rule["record"]: rule for rule in group["rules"]}


def test_options_fill_in_names_labels_and_thresholds() -> None:
    found = exported(OPTIONS)
    requests_rate = found["instance:gunicorn_requests:rate"]
    assert requests_rate["expr"] == (
        'sum by (job, cluster, instance) (rate(gunicorn_requests_total{job="we\\"b\\\\"}[1m]))'
    )
    share = found["GunicornErrorShare"]
    assert "> 0.5 and" in share["expr"]
    assert share["for"] == "0s"
    assert share["labels"] == {"severity": "page", "team": "we & {{ $labels.job }}"}
    assert 'quantile="0.9"} > 1 and' in found["GunicornSlow"]["expr"]
    assert found["GunicornMemoryGrowth"]["expr"].endswith("> 5400")
    quantiles = [rule for rule in parse(rules(OPTIONS))["groups"][0]["rules"] if "quantile" in rule.get("labels", {})]
    assert [rule["labels"]["quantile"] for rule in quantiles] == ["0.5", "0.95", "0.99", "0.9"]


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for name, rule in exported(RulesOptions()).items():
        if "alert" in rule:
            says_so = "which routes" in rule["annotations"]["description"]
            assert rule["annotations"].keys() == {"summary", "description", *(["routes"] if says_so else [])}, name
            assert len(rule["annotations"]["description"]) > 80, name
            assert "<" not in str(rule["annotations"]), name


def test_object_of_the_operator() -> None:
    found = parse(rules(RulesOptions(operator=True, operator_labels=("release=prometheus",))))
    assert (found["apiVersion"], found["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert found["metadata"]["labels"] == {"app.kubernetes.io/name": "promgun", "release": "prometheus"}
    assert found["spec"] == parse(rules(RulesOptions()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": "5"}, "'5' is not a duration"),
        ({"window": "0s"}, "is too short for the range of a query"),
        ({"event_window": ""}, "'' is not a duration"),
        ({"wait": "1s5m"}, "is not a duration"),
        ({"slow_quantile": 1.0}, "1 is not a quantile"),
    ],
)
def test_thresholds_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Thresholds(**changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RulesOptions(labels=("team",)), "'team' is not a label"),
        (RulesOptions(labels=("my-team=a",)), "'my-team' is not a label name"),
        (RulesOptions(by=("__name__",)), "'__name__' is not a label name"),
        (RulesOptions(operator=True, operator_labels=("a b=c",)), "not a label of Kubernetes"),
    ],
)
def test_labels_that_cannot_be(options: RulesOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rules(options)
