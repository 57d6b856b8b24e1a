"""Families of the listening sockets, read from the kernel while the page is made."""

from __future__ import annotations

from promgun.metrics.spec import CounterFamily, GaugeFamily, MetricSpec

LISTENER_QUEUE_CONNECTIONS: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_listener_queue_connections",
    labels=("listener",),
    group="listeners",
    help="Connections that wait in the accept queue for a worker now (Linux).",
)
LISTENER_QUEUE_LIMIT: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_listener_queue_limit",
    labels=("listener",),
    group="listeners",
    help="The most connections that the accept queue holds (Linux).",
)
LISTEN_OVERFLOWS: CounterFamily[tuple[()]] = CounterFamily(
    name="gunicorn_listen_overflows_total",
    group="listeners",
    help="Connections that found a full accept queue, in the whole network namespace (Linux).",
)
LISTEN_DROPS: CounterFamily[tuple[()]] = CounterFamily(
    name="gunicorn_listen_drops_total",
    group="listeners",
    help="Connections dropped before they were accepted, in the whole network namespace (Linux).",
)

FAMILIES: tuple[MetricSpec, ...] = (
    LISTENER_QUEUE_CONNECTIONS,
    LISTENER_QUEUE_LIMIT,
    LISTEN_OVERFLOWS,
    LISTEN_DROPS,
)
