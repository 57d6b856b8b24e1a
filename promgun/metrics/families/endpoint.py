"""Families of the metrics endpoint, counted by the metrics process itself and shown on the page that it serves."""

from __future__ import annotations

from promgun.metrics.label_values import ReloadResult
from promgun.metrics.late_label_values import EndpointRefusal
from promgun.metrics.spec import CounterFamily, MetricSpec

ENDPOINT_REFUSED: CounterFamily[tuple[EndpointRefusal]] = CounterFamily(
    name="promgun_endpoint_refused_total",
    labels=("reason",),
    group="endpoint",
    closed={"reason": tuple(EndpointRefusal)},
    help="Requests and connections that the metrics endpoint refused, since its process was started.",
)
WEB_CONFIG_RELOADS: CounterFamily[tuple[ReloadResult]] = CounterFamily(
    name="promgun_web_config_reloads_total",
    labels=("result",),
    group="endpoint",
    closed={"result": tuple(ReloadResult)},
    help="Reloads of the metrics endpoint's web configuration, certificates and tokens after they changed.",
)

FAMILIES: tuple[MetricSpec, ...] = (
    ENDPOINT_REFUSED,
    WEB_CONFIG_RELOADS,
)
