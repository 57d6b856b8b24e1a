"""The exported objects fit each other: what one names, another has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from promgun.errors import UsageError
from promgun.export.autoscaling import METRIC, Scaling
from promgun.export.command import ServerOptions
from promgun.export.kubernetes import KubernetesOptions, kubernetes
from tests.support.harness import Sandbox
from tests.support.yamls import parse, parse_all

OPTIONS = KubernetesOptions(
    name="shop",
    namespace="trade",
    image="registry.example:5000/shop@sha256:0123",
    memory="1.5Gi",
    cpu="500m",
    labels=("team=web",),
    operator_labels=("release=prometheus",),
)


def objects(options: KubernetesOptions) -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in parse_all(kubernetes(options))}


def container(options: KubernetesOptions) -> dict[str, Any]:
    (found,) = objects(options)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_objects() -> None:
    versions = {kind: one["apiVersion"] for kind, one in objects(OPTIONS).items()}
    assert versions == {
        "Deployment": "apps/v1",
        "Service": "v1",
        "PodMonitor": "monitoring.coreos.com/v1",
        "HorizontalPodAutoscaler": "autoscaling/v2",
    }
    for one in objects(OPTIONS).values():
        assert (one["metadata"]["name"], one["metadata"]["namespace"]) == ("shop", "trade")
        assert one["metadata"]["labels"]["team"] == "web"
    assert "namespace" not in objects(KubernetesOptions())["Service"]["metadata"]


def test_everything_selects_the_pods() -> None:
    found = objects(OPTIONS)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = (
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["PodMonitor"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
    )
    for selector in selectors:
        assert selector.items() <= labels.items()
    assert labels[found["PodMonitor"]["spec"]["jobLabel"]] == "shop"
    assert found["PodMonitor"]["metadata"]["labels"]["release"] == "prometheus"


def test_ports_that_are_named_exist_and_are_listened_at() -> None:
    options = replace(OPTIONS, server=ServerOptions(bind="0.0.0.0:8080", metrics_bind="[::]:9000"))
    pod, found = container(options), objects(options)
    ports = {port["name"]: port["containerPort"] for port in pod["ports"]}
    assert ports == {"http": 8080, "metrics": 9000}
    probes = [pod[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")]
    monitored = [endpoint["port"] for endpoint in found["PodMonitor"]["spec"]["podMetricsEndpoints"]]
    served = [port["targetPort"] for port in found["Service"]["spec"]["ports"]]
    assert {*probes, *monitored, *served} == ports.keys()
    assert pod["args"][pod["args"].index("--metrics-bind") + 1] == "[::]:9000"


def test_pod() -> None:
    pod = container(OPTIONS)
    assert pod["image"] == OPTIONS.image
    assert pod["resources"]["limits"] == {"cpu": "500m", "memory": "1.5Gi"}
    assert pod["args"][pod["args"].index("--metrics-bind") + 1] == "0.0.0.0:9164"
    spec = objects(OPTIONS)["Deployment"]["spec"]["template"]["spec"]
    mounted = {mount["name"] for mount in pod["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    # Above the pause of preStop and Gunicorn's default of 30 s together.
    assert spec["terminationGracePeriodSeconds"] > 30 + float(pod["lifecycle"]["preStop"]["exec"]["command"][1])
    assert "replicas" not in objects(OPTIONS)["Deployment"]["spec"]


def test_command_is_one_that_promgun_takes(sandbox: Sandbox) -> None:
    server = ServerOptions(app="promgun.demo:app", worker_type="gthread", threads=8, arguments=("--max-requests", "10"))
    pod = container(replace(OPTIONS, server=server))
    finished = sandbox.run("-m", *pod["command"], *pod["args"], "--check-config")
    assert finished.returncode == 0, finished.stderr


def test_autoscaler() -> None:
    scaling = Scaling(least=3, most=30, saturation=0.65)
    spec = objects(replace(OPTIONS, scaling=scaling))["HorizontalPodAutoscaler"]["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 30)
    assert spec["metrics"] == [
        {
            "type": "Pods",
            "pods": {"metric": {"name": METRIC}, "target": {"type": "AverageValue", "averageValue": "650m"}},
        }
    ]


def test_rule_for_the_adapter_stands_above_the_autoscaler() -> None:
    document = kubernetes(OPTIONS).split("---\n")[-1]
    head = [line.removeprefix("# ") for line in document.splitlines() if line.startswith("# ")]
    (rule,) = parse("\n".join(head[1:]))
    assert rule["name"] == {"as": METRIC}
    assert "<<.GroupBy>>" in rule["metricsQuery"]


def test_keda() -> None:
    scaled = objects(replace(OPTIONS, scaling=Scaling(keda=True, prometheus="https://prometheus:9090")))
    assert "HorizontalPodAutoscaler" not in scaled
    spec = scaled["ScaledObject"]["spec"]
    assert spec["scaleTargetRef"] == {"name": "shop"}
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["serverAddress"] == "https://prometheus:9090"
    assert trigger["metadata"]["threshold"] == "0.7"
    assert 'namespace="trade", pod=~"shop-.+"' in trigger["metadata"]["query"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (KubernetesOptions(name="Shop"), "'Shop' is not the name of an object"),
        (KubernetesOptions(name="a" * 64), "is not the name of an object"),
        (KubernetesOptions(namespace="a.b"), "'a.b' is not a namespace"),
        (KubernetesOptions(image="a b"), "'a b' is not an image. Write it as --image"),
        (KubernetesOptions(memory="lots"), "'lots' is not a quantity of memory. Write it as"),
        (KubernetesOptions(cpu="1 "), "'1 ' is not a quantity of CPUs. Write it as"),
        (KubernetesOptions(interval="0s"), "is too short"),
        (KubernetesOptions(scaling=Scaling(least=0)), "0 to 10 pods is not a range"),
        (KubernetesOptions(scaling=Scaling(least=11)), "11 to 10 pods is not a range"),
        (KubernetesOptions(scaling=Scaling(saturation=0)), "0 is not a saturation"),
        (KubernetesOptions(scaling=Scaling(keda=True, prometheus="prometheus:9090")), "is not the URL"),
        (KubernetesOptions(server=ServerOptions(bind="unix:/a")), "is not an address"),
        (KubernetesOptions(server=ServerOptions(metrics_bind="9164")), "is not an address"),
        (KubernetesOptions(server=ServerOptions(app="--help")), "'--help' is not an application"),
    ],
)
def test_what_the_api_would_refuse(options: KubernetesOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kubernetes(options)
