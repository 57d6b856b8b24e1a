"""``promgun export kubernetes``: objects that run a server, have it scraped, and scale it by its saturation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import partial

from promgun.errors import UsageError
from promgun.export.autoscaling import Scaling, autoscaler
from promgun.export.command import ANYWHERE, ServerOptions, arguments
from promgun.export.emitter import Commented, Node, to_yaml
from promgun.export.options import PART, option
from promgun.export.protection import WEB_FOLDER, PodProtection
from promgun.export.text import object_labels, port, window
from promgun.metrics.defaults import METRICS_PORT

_NAME_HINT = "Use at most 63 lower-case letters, digits and '-', a letter first"
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", re.ASCII)
_IMAGE = re.compile(r"[A-Za-z0-9][\w./:@-]*", re.ASCII)
#: The user id in the container, as the image's own is not known: not root, and not an account of the host.
USER = 10001
# 0444 in decimal, as JSON needs it: the image's user is not the owner of a Secret's files.
_READABLE = 0o444

HEAD = """\
A server under promgun, made by: promgun export kubernetes
PodMonitor needs the Prometheus Operator. Its job is called {name}: promgun export rules --job {name} --operator"""
PROBES = """\
Both are answered by the metrics process, which also answers while every worker is busy: a full server is not
restarted, and gets no less traffic than its peers."""
TCP_PROBES = """\
The kubelet has no client certificate to show, so it only sees whether the metrics process takes connections: a pod
counts as ready before its workers are."""
REPLICAS = "No replicas: the autoscaler decides."
GRACE = "Above the pause before SIGTERM and --graceful-timeout (30 s) together."
PAUSE = "Meanwhile the Service stops sending connections here; then SIGTERM lets running requests end."
WRITABLE = "Gunicorn's heartbeat files and the list of runs; the metrics store is in /dev/shm."


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesOptions:
    """What the objects are made with; ``cpu`` and ``memory`` are quantities of Kubernetes."""

    server: ServerOptions = field(
        default_factory=partial(ServerOptions, bind=f"{ANYWHERE}:8000", metrics_bind=f"{ANYWHERE}:{METRICS_PORT}"),
        metadata=PART,
    )
    protection: PodProtection = field(default_factory=PodProtection, metadata=PART)
    scaling: Scaling = field(default_factory=Scaling, metadata=PART)
    name: str = option("web", "The name of every object, and of the job in Prometheus.")
    namespace: str = option("", "The namespace; if not given, kubectl's.")
    image: str = option("registry.example/web:1.0", "The image with the application and promgun.")
    cpu: str = option("1", "CPUs of each pod, as request and as limit.", "QUANTITY")
    memory: str = option("512Mi", "Memory of each pod, as request and as limit.", "QUANTITY")
    labels: tuple[str, ...] = option((), "A label for every object.", "NAME=VALUE", "--label")
    operator_labels: tuple[str, ...] = option(
        (), "A label of the PodMonitor, by which Prometheus selects it.", "NAME=VALUE", "--operator-label"
    )
    interval: str = option("15s", "How often to scrape.", "DURATION")


def kubernetes(options: KubernetesOptions) -> str:
    """Return Deployment, Service, PodMonitor and the autoscaler; raises ``UsageError`` for what the API refuses."""
    for text, rule, what, hint in (
        (options.name, _NAME, "the name of an object", _NAME_HINT),
        (options.namespace or "default", _NAME, "a namespace", _NAME_HINT),
        (options.image, _IMAGE, "an image", "Write it as --image registry.example/web:1.0"),
        (options.cpu, _QUANTITY, "a quantity of CPUs", "Write it as Kubernetes does: --cpu 2 or --cpu 500m"),
        (options.memory, _QUANTITY, "a quantity of memory", "Write it as Kubernetes does: --memory 512Mi"),
    ):
        if not rule.fullmatch(text):
            raise UsageError(f"{text!r} is not {what}", hint)
    options.protection.check()
    scaler = autoscaler(options.scaling, options.name, _metadata(options))
    deployment = Commented(_deployment(options), HEAD.format(name=options.name))
    return to_yaml(deployment, _service(options), _pod_monitor(options), scaler)


def _selector(options: KubernetesOptions) -> dict[str, str]:
    return {"app.kubernetes.io/name": options.name}


def _metadata(options: KubernetesOptions, extra: tuple[str, ...] = ()) -> dict[str, Node]:
    namespace: dict[str, Node] = {"namespace": options.namespace} if options.namespace else {}
    found = _selector(options) | object_labels(options.labels) | object_labels(extra)
    return {"name": options.name, **namespace, "labels": found}


def _deployment(options: KubernetesOptions) -> Node:
    pod: dict[str, Node] = {
        "terminationGracePeriodSeconds": Commented(45, GRACE),
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(options)],
        "volumes": _volumes(options),
    }
    template: Node = {"metadata": {"labels": _selector(options) | object_labels(options.labels)}, "spec": pod}
    spec: dict[str, Node] = {
        "selector": Commented({"matchLabels": _selector(options)}, REPLICAS),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": template,
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _metadata(options), "spec": spec}


def _container(options: KubernetesOptions) -> Node:
    server = options.server
    further = ("--worker-tmp-dir", "/tmp", *options.protection.arguments(), *server.arguments)  # noqa: S108 - the pod's own
    resources = {"cpu": options.cpu, "memory": options.memory}
    return {
        "name": "web",
        "image": options.image,
        "command": ["promgun", "run"],
        "args": list(arguments(replace(server, arguments=further))),
        "ports": [
            {"name": "http", "containerPort": port(server.bind)},
            {"name": "metrics", "containerPort": port(server.metrics_bind)},
        ],
        "startupProbe": Commented(
            _probe(options, "/-/ready", period=2, failures=30),
            TCP_PROBES if options.protection.client_certificates else PROBES,
        ),
        "readinessProbe": _probe(options, "/-/ready", period=5, failures=2),
        "livenessProbe": _probe(options, "/-/healthy", period=10, failures=3),
        "lifecycle": {"preStop": Commented({"exec": {"command": ["sleep", "5"]}}, PAUSE)},
        "resources": {"requests": resources, "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": Commented(_mounts(options), WRITABLE),
    }


def _volumes(options: KubernetesOptions) -> list[Node]:
    volumes: list[Node] = [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}]
    if secret := options.protection.web_secret:
        volumes.append({"name": "web", "secret": {"secretName": secret, "defaultMode": _READABLE}})
    return volumes


def _mounts(options: KubernetesOptions) -> list[Node]:
    mounts: list[Node] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - the pod's own
    if options.protection.web_secret:
        mounts.append({"name": "web", "mountPath": WEB_FOLDER, "readOnly": True})
    return mounts


def _probe(options: KubernetesOptions, path: str, *, period: int, failures: int) -> Node:
    scheme: dict[str, Node] = {"scheme": "HTTPS"} if options.protection.speaks_tls else {}
    asks: dict[str, Node] = {"httpGet": {"path": path, "port": "metrics", **scheme}}
    if options.protection.client_certificates:
        asks = {"tcpSocket": {"port": "metrics"}}
    return {
        **asks,
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _service(options: KubernetesOptions) -> Node:
    ports: Node = [{"name": "http", "port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(options),
        "spec": {"selector": _selector(options), "ports": ports},
    }


def _pod_monitor(options: KubernetesOptions) -> Node:
    endpoint: dict[str, Node] = {"port": "metrics", "path": "/metrics", "interval": window(options.interval)}
    endpoint |= options.protection.fields()
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": _metadata(options, options.operator_labels),
        "spec": {
            "jobLabel": "app.kubernetes.io/name",
            "selector": {"matchLabels": _selector(options)},
            "podMetricsEndpoints": [endpoint],
        },
    }
