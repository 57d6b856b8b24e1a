"""The dashboard's panels about saturation and queues."""

from __future__ import annotations

from promgun.export.panel import Panel, Query, Row
from promgun.export.panels_requests import FULL

_BUSY = "sum by (instance) (rate(gunicorn_worker_busy_seconds_total{<servers>}[<rate>]))"
_CAPACITY = "sum by (instance) (gunicorn_worker_capacity{<servers>})"
_WAITING = "sum by (instance) (gunicorn_listener_queue_connections{<servers>})"
_WEBSOCKETS = "sum by (instance) (gunicorn_websocket_connections{<servers>})"


def _wait(quantile: str) -> Query:
    buckets = "rate(gunicorn_request_queue_seconds_bucket{<servers>}[<rate>])"
    expr = f"histogram_quantile({quantile}, sum by (source, le) ({buckets}))"
    return Query(expr, f"{{{{source}}}} p{quantile.removeprefix('0.')}")


SATURATION = Row(
    "Saturation",
    (
        Panel(
            title="Saturation",
            text="Running and waiting requests and open websockets divided by capacity. Add workers or instances when "
            "it stays high: above 100 % requests wait for a worker.",
            queries=(
                Query(
                    f"({_BUSY} + ({_WAITING} or 0 * {_BUSY}) + ({_WEBSOCKETS} or 0 * {_BUSY})) / {_CAPACITY}",
                    "{{instance}}",
                ),
            ),
            unit="percentunit",
            steps=FULL,
        ),
        Panel(
            title="Utilisation",
            text="Busy seconds per second divided by capacity: the share of the workers' time that requests take.",
            queries=(Query(f"{_BUSY} / {_CAPACITY}", "{{instance}}"),),
            unit="percentunit",
            top=1,
        ),
        Panel(
            title="Requests running",
            text="Requests being served now, and the most that could be.",
            queries=(
                Query("sum by (instance) (gunicorn_worker_requests_in_progress{<servers>})", "{{instance}}"),
                Query(_CAPACITY, "{{instance}} capacity"),
            ),
        ),
        Panel(
            title="Oldest request",
            text="Age of the oldest running request: one that hangs shows here long before it shows in the latency.",
            queries=(Query("max by (instance) (gunicorn_worker_oldest_request_seconds{<servers>})", "{{instance}}"),),
            unit="s",
        ),
        Panel(
            title="Late loops",
            text="The most that an event loop or a hub was late: what blocks it keeps all its requests waiting. Types "
            "asgi, uvicorn, gevent and eventlet.",
            queries=(
                Query("max by (instance) (gunicorn_worker_loop_lag_seconds{<servers>})", "{{instance}} at most"),
                Query(
                    "sum by (instance) (rate(gunicorn_worker_loop_late_seconds_total{<servers>}[<rate>]))",
                    "{{instance}} per second",
                ),
            ),
            unit="s",
        ),
        Panel(
            title="CPU of the workers",
            text="CPU seconds per second. Busy workers with idle CPUs wait for something else.",
            queries=(
                Query(
                    "sum by (instance, mode) (rate(gunicorn_worker_cpu_seconds_total{<servers>}[<rate>]))",
                    "{{instance}} {{mode}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            title="Waiting for a CPU",
            text="Seconds per second that workers were ready to run and got no CPU: too many workers, or a limit.",
            queries=(
                Query(
                    "sum by (instance) (rate(gunicorn_worker_cpu_wait_seconds_total{<servers>}[<rate>]))",
                    "{{instance}}",
                ),
            ),
        ),
    ),
)

QUEUES = Row(
    "Queues",
    (
        Panel(
            title="Accept queue",
            text="Connections that wait for a worker, and how many may. A full queue turns clients away.",
            queries=(
                Query(
                    "max by (instance, listener) (gunicorn_listener_queue_connections{<servers>})",
                    "{{instance}} {{listener}}",
                ),
                Query(
                    "max by (instance, listener) (gunicorn_listener_queue_limit{<servers>})",
                    "{{instance}} {{listener}} limit",
                ),
            ),
        ),
        Panel(
            title="Turned away",
            text="Connections per second that found a full queue or were dropped, in the whole network namespace.",
            queries=(
                Query(
                    "sum by (instance) (rate(gunicorn_listen_overflows_total{<servers>}[<rate>]))",
                    "{{instance}} overflows",
                ),
                Query("sum by (instance) (rate(gunicorn_listen_drops_total{<servers>}[<rate>]))", "{{instance}} drops"),
            ),
            unit="cps",
        ),
        Panel(
            title="Wait before a worker",
            text="kernel: in the accept queue. proxy: since the moment that the proxy wrote into a header.",
            queries=(_wait("0.50"), _wait("0.99")),
            unit="s",
        ),
    ),
)
