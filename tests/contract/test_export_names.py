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
from promgun.metrics.catalog import CATALOG, EXIT_CAUSES, MetricSpec
from tests.promql import Mismatch, Series, check
from tests.yamls import parse

TARGET = ("job", "instance")
#: Ends of workers that somebody asked for.
WANTED = {"max_requests", "reload", "scale_in", "shutdown"}
#: Families of which no panel could say more than others do.
NOT_SHOWN: set[str] = set()


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
    series, target = dict(SERIES), (*TARGET, *by)
    for rule in exported_rules(*by):
        shape = check(rule["expr"], series, target)
        assert shape.labels is not None
        labels = shape.labels | rule.get("labels", {}).keys()
        if "record" in rule:
            assert {"job", *by} <= shape.labels
            # What is recorded carries all its labels itself, whatever the target of the rule is.
            series[rule["record"]] = Recorded(labels, "gauge")
            series = {name: value for name, value in series.items()}
        else:
            for text in rule["annotations"].values():
                assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels, rule["alert"]
            assert "job" in labels
