"""The dashboard's panels about requests: overview, traffic, errors, latency."""

from __future__ import annotations

from promgun.export.panel import Panel, Query, Row, Steps

SHARE: Steps = ((None, "green"), (0.01, "yellow"), (0.05, "red"))
FULL: Steps = ((None, "green"), (0.7, "yellow"), (0.9, "red"))
ANY: Steps = ((None, "green"), (1, "red"))
_REQUESTS = "sum(rate(gunicorn_requests_total{<routes>}[<rate>]))"
_ERRORS = 'sum(rate(gunicorn_requests_total{<routes>, status=~"5.."}[<rate>]))'
_BUSY = "sum(rate(gunicorn_worker_busy_seconds_total{<servers>}[<rate>]))"
_WAITING = "(sum(gunicorn_listener_queue_connections{<servers>}) or vector(0))"
_WEBSOCKETS = "(sum(gunicorn_websocket_connections{<servers>}) or vector(0))"


def _quantile(quantile: str, by: str = "", span: str = "<rate>") -> str:
    buckets = f"rate(gunicorn_request_duration_seconds_bucket{{<routes>}}[{span}])"
    return f"histogram_quantile({quantile}, sum by ({by}le) ({buckets}))"


OVERVIEW = Row(
    "Overview",
    (
        Panel(
            title="Instances up",
            text="Servers whose metrics endpoint answers and whose master lives.",
            kind="stat",
            queries=(Query("sum(gunicorn_up{<servers>})", "up"),),
            unit="none",
            width=3,
            height=4,
            steps=((None, "red"), (1, "green")),
        ),
        Panel(
            title="Requests",
            text="Requests answered per second.",
            kind="stat",
            queries=(Query(_REQUESTS, "requests"),),
            unit="reqps",
            width=3,
            height=4,
        ),
        Panel(
            title="Error share",
            text="Share of answers with a status of 500 or above.",
            kind="stat",
            queries=(Query(f"({_ERRORS} or vector(0)) / {_REQUESTS}", "errors"),),
            unit="percentunit",
            width=3,
            height=4,
            steps=SHARE,
        ),
        Panel(
            title="p99",
            text="99 of 100 requests took no longer than this.",
            kind="stat",
            queries=(Query(_quantile("0.99"), "p99"),),
            unit="s",
            width=3,
            height=4,
            steps=((None, "green"), (1, "yellow"), (5, "red")),
        ),
        Panel(
            title="Saturation",
            text="Running and waiting requests and open websockets divided by capacity. Above 100 %, requests wait for "
            "a worker.",
            queries=(
                Query(
                    f"({_BUSY} + {_WAITING} + {_WEBSOCKETS}) / sum(gunicorn_worker_capacity{{<servers>}})",
                    "saturation",
                ),
            ),
            unit="percentunit",
            width=3,
            height=4,
            steps=FULL,
        ),
        Panel(
            title="Waiting",
            text="Connections that the kernel has accepted and no worker has taken.",
            kind="stat",
            queries=(Query("sum(gunicorn_listener_queue_connections{<servers>})", "waiting"),),
            unit="none",
            width=3,
            height=4,
            steps=((None, "green"), (1, "yellow"), (100, "red")),
        ),
        Panel(
            title="Workers missing",
            text="Workers that were asked for and do not serve: still booting, or dying.",
            kind="stat",
            queries=(
                Query(
                    'sum(gunicorn_workers{<servers>, state="target"})'
                    ' - sum(gunicorn_workers{<servers>, state="booted"})',
                    "missing",
                ),
            ),
            unit="none",
            width=3,
            height=4,
            steps=ANY,
        ),
        Panel(
            title="Unclean ends",
            text="Workers that ended in the time shown without having been asked to.",
            kind="stat",
            queries=(
                Query(
                    "sum(increase(gunicorn_worker_exits_total"
                    '{<servers>, cause!~"max_requests|reload|scale_in|shutdown"}[$__range]))',
                    "ends",
                ),
            ),
            unit="none",
            width=3,
            height=4,
            steps=ANY,
            trend=False,
        ),
    ),
)

TRAFFIC = Row(
    "Traffic",
    (
        Panel(
            title="Requests by status",
            text="Requests answered per second, by the first digit of their status.",
            queries=tuple(
                Query(f'sum(rate(gunicorn_requests_total{{<routes>, status=~"{digit}.."}}[<rate>]))', f"{digit}xx")
                for digit in (1, 2, 3, 4, 5)
            ),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            title="Requests by route",
            text="The ten busiest routes. The route is the framework's template; empty where it has none.",
            queries=(
                Query(
                    "topk(10, sum by (method, route) (rate(gunicorn_requests_total{<routes>}[<rate>])))",
                    "{{method}} {{route}}",
                ),
            ),
            unit="reqps",
        ),
        Panel(
            title="Bodies",
            text="Bytes of request bodies received and response bodies sent per second.",
            queries=(
                Query("sum(rate(gunicorn_request_size_bytes_sum{<routes>}[<rate>]))", "received"),
                Query("sum(rate(gunicorn_response_size_bytes_sum{<routes>}[<rate>]))", "sent"),
            ),
            unit="Bps",
        ),
    ),
)

ERRORS = Row(
    "Errors",
    (
        Panel(
            title="Error share by route",
            text="Share of answers with a status of 500 or above, of the ten worst routes.",
            queries=(
                Query(
                    'topk(10, sum by (method, route) (rate(gunicorn_requests_total{<routes>, status=~"5.."}[<rate>]))'
                    " / sum by (method, route) (rate(gunicorn_requests_total{<routes>}[<rate>])))",
                    "{{method}} {{route}}",
                ),
            ),
            unit="percentunit",
            top=1,
        ),
        Panel(
            title="Exceptions",
            text="Exceptions that left the application, by their class; requests refused before it was called.",
            queries=(
                Query("sum by (error_type) (rate(gunicorn_failed_requests_total{<routes>}[<rate>]))", "{{error_type}}"),
                Query(
                    "sum by (error_type) (rate(gunicorn_invalid_requests_total{<servers>}[<rate>]))",
                    "refused: {{error_type}}",
                ),
            ),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            title="Clients gone, errors logged",
            text="Clients that left while they sent the request or got the response; records of the error log.",
            queries=(
                Query(
                    "sum by (phase) (rate(gunicorn_client_disconnects_total{<servers>}[<rate>]))",
                    "client left: {{phase}}",
                ),
                Query(
                    "sum by (level) (rate(gunicorn_log_messages_total"
                    '{<servers>, level=~"warning|error|critical"}[<rate>]))',
                    "log: {{level}}",
                ),
            ),
            unit="cps",
        ),
    ),
)

LATENCY = Row(
    "Latency",
    (
        Panel(
            title="Time to answer",
            text="From the parsed head to the last byte handed to the socket: median, 95th and 99th percentile.",
            queries=tuple(Query(_quantile(f"0.{digits}"), f"p{digits}") for digits in ("50", "95", "99")),
            unit="s",
        ),
        Panel(
            title="Time to first byte",
            text="From the parsed head to the first byte handed to the socket. Streams, which last as long as they "
            "like, do not spoil it.",
            queries=tuple(
                Query(
                    f"histogram_quantile(0.{digits}, sum by (le) "
                    "(rate(gunicorn_response_start_seconds_bucket{<routes>}[<rate>])))",
                    f"p{digits}",
                )
                for digits in ("50", "95", "99")
            ),
            unit="s",
        ),
        Panel(
            title="Distribution",
            text="How many requests took how long. Two bands are two kinds of requests: choose a route above.",
            kind="heatmap",
            queries=(
                Query("sum by (le) (increase(gunicorn_request_duration_seconds_bucket{<routes>}[<rate>]))", "{{le}}"),
            ),
            unit="s",
        ),
        Panel(
            title="p99 by route",
            text="The 99th percentile of the ten slowest routes.",
            queries=(Query(f"topk(10, {_quantile('0.99', 'method, route, ')})", "{{method}} {{route}}"),),
            unit="s",
        ),
        Panel(
            title="Busy by route",
            text="Requests that ran at once, on average, of the ten routes that keep the workers busiest.",
            queries=(
                Query(
                    "topk(10, sum by (route) (rate(gunicorn_request_duration_seconds_sum{<routes>}[<rate>])))",
                    "{{route}}",
                ),
            ),
            width=12,
        ),
        Panel(
            title="CPU by route",
            text="CPUs that the ten routes which compute most use. A route that is busy and is not here waits. "
            "Only sync and gthread workers count it.",
            queries=(
                Query(
                    "topk(10, sum by (route) (rate(gunicorn_request_cpu_seconds_total{<routes>}[<rate>])))",
                    "{{route}}",
                ),
            ),
            width=12,
        ),
        Panel(
            title="Routes",
            text="Every route over the time shown.",
            kind="table",
            queries=(
                Query(
                    "sum by (method, route) (rate(gunicorn_requests_total{<routes>}[$__range]))", "Requests/s", "reqps"
                ),
                Query(
                    'sum by (method, route) (rate(gunicorn_requests_total{<routes>, status=~"5.."}[$__range]))'
                    " / sum by (method, route) (rate(gunicorn_requests_total{<routes>}[$__range]))",
                    "Errors",
                    "percentunit",
                ),
                *(
                    Query(_quantile(f"0.{digits}", "method, route, ", "$__range"), f"p{digits}", "s")
                    for digits in ("50", "95", "99")
                ),
                Query(
                    "sum by (method, route) (rate(gunicorn_response_size_bytes_sum{<routes>}[$__range]))"
                    " / sum by (method, route) (rate(gunicorn_response_size_bytes_count{<routes>}[$__range]))",
                    "Mean response",
                    "bytes",
                ),
            ),
            width=24,
        ),
    ),
)
