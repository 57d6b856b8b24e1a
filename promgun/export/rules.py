"""``promgun export rules``: recording and alert rules for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from promgun.errors import UsageError
from promgun.export.alerts import ALERTS, Alert
from promgun.export.emitter import Node, comment, to_yaml
from promgun.export.options import PART, option
from promgun.export.recording import RECORDS, Record, quantile
from promgun.export.text import fill, label_name, labels, object_labels, quote, seconds, window

JOB = "promgun"
QUANTILES = ("0.5", "0.95", "0.99")
HEAD = """\
Recording and alert rules for servers under promgun, made by: promgun export rules
Name this file under rule_files of prometheus.yml; test it with: promtool check rules FILE
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When alerts fire: durations as Prometheus writes them, shares from 0 to 1, memory in bytes an hour."""

    window: str = option("5m", "How far rates and averages look back.", "DURATION")
    event_window: str = option("15m", "How far counts of deaths, restarts and overflows look back.", "DURATION")
    wait: str = option("5m", "How long a condition must hold before its alert fires.", "DURATION")
    error_share: float = option(0.05, "GunicornErrorShare fires above this share of 5xx answers.")
    slow_seconds: float = option(1.0, "GunicornSlow fires above this duration, less than the largest bucket's bound.")
    slow_quantile: float = option(0.99, "GunicornSlow compares this quantile of the durations.")
    min_requests: float = option(20, "GunicornErrorShare and GunicornSlow need at least these requests in --window.")
    stuck_seconds: float = option(60.0, "GunicornStuckRequest fires for a request that is older than this.")
    blocked_seconds: float = option(1.0, "GunicornLoopBlocked fires above this lateness of an event loop.")
    saturation: float = option(
        0.9, "GunicornSaturated fires above this: requests, waiting or not, and websockets / capacity."
    )
    queue_share: float = option(0.5, "GunicornQueueFilling fires above this share of the accept queue in use.")
    deaths: float = option(0, "GunicornWorkersDying fires above these deaths of one cause in --event-window.")
    crash_loop: float = option(10, "GunicornCrashLoop fires above these deaths of any cause in --event-window.")
    restarts: float = option(3, "GunicornRestarting fires at these starts of the server in --event-window.")
    memory_window: str = option("1h", "GunicornMemoryGrowth needs a worker to grow for this time.", "DURATION")
    memory_growth: float = option(104_857_600, "GunicornMemoryGrowth fires above this growth in bytes an hour.")

    def __post_init__(self) -> None:
        """Raise ``UsageError`` for values that no rule can be made with."""
        seconds(self.wait)
        for looked_back in (self.window, self.event_window, self.memory_window):
            window(looked_back)
        if not 0 < self.slow_quantile < 1:
            raise UsageError(f"{self.slow_quantile:g} is not a quantile", "Give a number between 0 and 1, e.g. 0.99")


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesOptions:
    """What the rules are made with.

    ``job`` is the scrape job whose series they read; ``by`` are labels of the targets to keep apart beside job and
    instance (``cluster``); ``labels`` go on every alert, before which ``severity`` yields; ``operator`` makes the
    object of the Prometheus Operator, with ``operator_labels``.
    """

    job: str = option(JOB, "The job of the servers, as the scrape job names it.", "NAME")
    by: tuple[str, ...] = option((), "A label of the targets to keep apart, e.g. cluster.", "LABEL")
    labels: tuple[str, ...] = option((), "A label for every alert, e.g. team=web.", "NAME=VALUE", "--label")
    operator: bool = option(default=False, text="Print a PrometheusRule for the Prometheus Operator.")
    operator_labels: tuple[str, ...] = option(
        (), "A label of the PrometheusRule, by which Prometheus selects it.", "NAME=VALUE", "--operator-label"
    )
    thresholds: Thresholds = field(default_factory=Thresholds, metadata=PART)


def rules(options: RulesOptions) -> str:
    """Return the rule file, or the PrometheusRule; raises ``UsageError`` for options that cannot be used."""
    groups: dict[str, Node] = {"groups": _groups(options)}
    if not options.operator:
        return "".join(f"{line}\n" for line in comment(HEAD)) + to_yaml(groups)
    found = {"app.kubernetes.io/name": "promgun"} | object_labels(options.operator_labels)
    metadata: Node = {"name": "promgun", "labels": found}
    return to_yaml(
        {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": metadata, "spec": groups}
    )


def _groups(options: RulesOptions) -> list[Node]:
    values = placeholders(options)
    slow = values["slow_quantile"]
    quantiles = [quantile(value) for value in dict.fromkeys((*QUANTILES, slow))]
    extra = labels(options.labels)
    # One group: its rules are evaluated one after another, so alerts see what was recorded at the same instant.
    found = [_record(record, values) for record in (*RECORDS, *quantiles)]
    return [{"name": "promgun", "rules": [*found, *(_alert(alert, values, extra) for alert in ALERTS)]}]


def placeholders(options: RulesOptions) -> dict[str, str]:
    """Return what fills the templates."""
    limits = options.thresholds
    numbers = {
        one.name: value if isinstance(value := getattr(limits, one.name), str) else f"{value:.15g}"
        for one in fields(limits)
    }
    names = dict.fromkeys(("job", *map(label_name, options.by)))
    return numbers | {
        "select": f"job={quote(options.job)}",
        "by": ", ".join(name for name in names if name != "instance"),
        "memory_seconds": f"{seconds(limits.memory_window):g}",
    }


def _record(record: Record, values: Mapping[str, str]) -> Node:
    rule: dict[str, Node] = {"record": record.name, "expr": fill(record.expr, values)}
    return rule | ({"labels": dict(record.labels)} if record.labels else {})


def _alert(alert: Alert, values: Mapping[str, str], extra: Mapping[str, str]) -> Node:
    waits = {"for": fill(alert.wait, values)} if alert.wait else {}
    return {
        "alert": alert.name,
        "expr": fill(alert.expr, values),
        **waits,
        "labels": {"severity": alert.severity, **alert.labels, **extra},
        "annotations": {
            "summary": fill(alert.summary, values),
            "description": fill(f"{alert.meaning} {alert.action}", values),
            **_routes_link(alert, values),
        },
    }


def _routes_link(alert: Alert, values: Mapping[str, str]) -> dict[str, str]:
    """Return the annotation with the address of the query by route in Prometheus, which fills it in at its side.

    Strings of PromQL and of Prometheus' templates have the same escapes.
    """
    if not alert.routes:
        return {}
    return {"routes": f"{{{{ externalURL }}}}{{{{ graphLink {quote(fill(alert.routes, values))} }}}}"}
