"""Scaling by saturation: running and waiting requests and open websockets, divided by what can be served at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from promgun.errors import UsageError
from promgun.export.emitter import Commented, Node, to_yaml
from promgun.export.options import option
from promgun.export.text import quote, window

METRIC = "gunicorn_saturation"
#: The saturation of each pod, as instance:gunicorn_saturation:ratio computes it, without the need of recording rules.
DEMAND = (
    "(sum by ({by}) (rate(gunicorn_worker_busy_seconds_total{{{select}}}[{window}]))"
    " + (sum by ({by}) (avg_over_time(gunicorn_listener_queue_connections{{{select}}}[{window}]))"
    " or 0 * sum by ({by}) (gunicorn_worker_capacity{{{select}}}))"
    " + (sum by ({by}) (avg_over_time(gunicorn_websocket_connections{{{select}}}[{window}]))"
    " or 0 * sum by ({by}) (gunicorn_worker_capacity{{{select}}})))"
    " / sum by ({by}) (gunicorn_worker_capacity{{{select}}})"
)
ADAPTER = """\
{metric} comes from prometheus-adapter by this rule (Helm values: rules.custom):
{rule}"""
SLOWLY_DOWN = "One quiet minute does not remove pods."


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Between how many pods, at what saturation of each; with ``keda`` its ScaledObject, asking ``prometheus``."""

    least: int = option(2, "The fewest pods.", flag="--min")
    most: int = option(10, "The most pods.", flag="--max")
    saturation: float = option(0.7, "The saturation to aim at: what each pod serves or has waiting / its capacity.")
    window: str = option("2m", "The time that the saturation is averaged over.", "DURATION")
    keda: bool = option(default=False, text="Print a ScaledObject for KEDA, not a HorizontalPodAutoscaler.")
    prometheus: str = option(
        "http://prometheus-operated.monitoring.svc:9090", "The Prometheus server that KEDA queries.", "URL"
    )


def autoscaler(scaling: Scaling, target: str, metadata: Mapping[str, Node]) -> Node:
    """Return the HorizontalPodAutoscaler or ScaledObject; raises ``UsageError`` for numbers that make no sense."""
    if not 0 < scaling.least <= scaling.most:
        raise UsageError(
            f"{scaling.least} to {scaling.most} pods is not a range", "Give at least 1, and --max above --min"
        )
    if scaling.saturation <= 0:
        raise UsageError(f"{scaling.saturation:g} is not a saturation to aim at", "Give a share above 0, e.g. 0.7")
    window(scaling.window)
    return _keda(scaling, target, metadata) if scaling.keda else _hpa(scaling, target, metadata)


def _behavior() -> Node:
    return {"scaleDown": Commented({"stabilizationWindowSeconds": 300}, SLOWLY_DOWN)}


def adapter_rule(scaling: Scaling) -> list[Node]:
    """Return the rule for prometheus-adapter, which fills in ``<<...>>``."""
    query = DEMAND.format(by="<<.GroupBy>>", select="<<.LabelMatchers>>", window=scaling.window)
    resources = {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
    return [
        {
            "seriesQuery": 'gunicorn_worker_capacity{namespace!="", pod!=""}',
            "resources": {"overrides": resources},
            "name": {"as": METRIC},
            "metricsQuery": query,
        }
    ]


def _hpa(scaling: Scaling, target: str, metadata: Mapping[str, Node]) -> Node:
    goal = {"type": "AverageValue", "averageValue": f"{round(scaling.saturation * 1000)}m"}
    spec: Node = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        "minReplicas": scaling.least,
        "maxReplicas": scaling.most,
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": METRIC}, "target": goal}}],
        "behavior": _behavior(),
    }
    rule = to_yaml(adapter_rule(scaling)).rstrip("\n")
    return Commented(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": metadata,
            "spec": spec,
        },
        ADAPTER.format(metric=METRIC, rule=rule),
    )


def keda_query(scaling: Scaling, target: str, namespace: Node | None) -> str:
    """Return the sum over the pods, which KEDA divides by their number."""
    within = f"namespace={quote(str(namespace))}, " if namespace else ""
    select = f"{within}pod=~{quote(f'{target}-.+')}"
    return "sum(" + DEMAND.format(by="pod", select=select, window=scaling.window) + ")"


def _keda(scaling: Scaling, target: str, metadata: Mapping[str, Node]) -> Node:
    if urlsplit(scaling.prometheus).scheme not in {"http", "https"}:
        raise UsageError(
            f"{scaling.prometheus!r} is not the URL of a Prometheus server", "Write it as http://HOST:PORT"
        )
    trigger: Node = {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": scaling.prometheus,
            "query": keda_query(scaling, target, metadata.get("namespace")),
            "threshold": f"{scaling.saturation:g}",
            # Without an answer KEDA leaves the number of pods unchanged.
            "ignoreNullValues": "false",
        },
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"name": target},
            "minReplicaCount": scaling.least,
            "maxReplicaCount": scaling.most,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior()}},
            "triggers": [trigger],
        },
    }
