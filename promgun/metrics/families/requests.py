"""Families of requests, counted by workers."""

from __future__ import annotations

from promgun.metrics.label_values import DisconnectPhase, ExitCause, QueueSource, UnansweredReason
from promgun.metrics.spec import CounterFamily, HistogramFamily, MetricSpec

REQUESTS: CounterFamily[tuple[str, str, str]] = CounterFamily(
    name="gunicorn_requests_total",
    labels=(
        "method",
        "route",
        "status",
    ),
    group="requests",
    help="Requests answered, by the application or by the worker for it.",
)
REQUEST_DURATION_SECONDS: HistogramFamily[tuple[str, str, str]] = HistogramFamily(
    name="gunicorn_request_duration_seconds",
    labels=(
        "method",
        "route",
        "status",
    ),
    group="requests",
    buckets="duration",
    help="Time from the parsed request head to the response's last byte handed to the socket.",
)
RESPONSE_START_SECONDS: HistogramFamily[tuple[str, str]] = HistogramFamily(
    name="gunicorn_response_start_seconds",
    labels=(
        "method",
        "route",
    ),
    group="requests",
    buckets="duration",
    help="Time from the parsed request head to the response's first byte handed to the socket.",
)
REQUEST_SIZE_BYTES: HistogramFamily[tuple[str, str]] = HistogramFamily(
    name="gunicorn_request_size_bytes",
    labels=(
        "method",
        "route",
    ),
    group="requests",
    buckets="size",
    help="Size of the request body, as received.",
)
RESPONSE_SIZE_BYTES: HistogramFamily[tuple[str, str]] = HistogramFamily(
    name="gunicorn_response_size_bytes",
    labels=(
        "method",
        "route",
    ),
    group="requests",
    buckets="size",
    help="Size of the response body, as sent.",
)
REQUEST_CPU_SECONDS: CounterFamily[tuple[str]] = CounterFamily(
    name="gunicorn_request_cpu_seconds_total",
    labels=("route",),
    group="requests",
    help=(
        "CPU time that the serving thread spent on answered requests, estimated from random ones where a worker serves "
        "over 100 a second; absent where a thread serves several requests at once (gevent, eventlet), and with "
        "--no-metrics-request-cpu."
    ),
)
FAILED_REQUESTS: CounterFamily[tuple[str, str, str]] = CounterFamily(
    name="gunicorn_failed_requests_total",
    labels=(
        "method",
        "route",
        "error_type",
    ),
    group="requests",
    help="Requests that ended in an exception that the application did not catch, by the exception's class.",
)
INVALID_REQUESTS: CounterFamily[tuple[str]] = CounterFamily(
    name="gunicorn_invalid_requests_total",
    labels=("error_type",),
    group="requests",
    help="Requests refused before the application was called.",
)
CLIENT_DISCONNECTS: CounterFamily[tuple[DisconnectPhase]] = CounterFamily(
    name="gunicorn_client_disconnects_total",
    labels=("phase",),
    group="requests",
    closed={"phase": tuple(DisconnectPhase)},
    help="Requests whose client left before the answer was complete, by what was being sent.",
)
REQUEST_QUEUE_SECONDS: HistogramFamily[tuple[QueueSource]] = HistogramFamily(
    name="gunicorn_request_queue_seconds",
    labels=("source",),
    group="requests",
    closed={"source": tuple(QueueSource)},
    buckets="duration",
    help=(
        "Time before a worker took the request: in the accept queue (kernel, sampled), or since the moment that a "
        "proxy wrote into its header (proxy)."
    ),
)
REQUESTS_LOST: CounterFamily[tuple[ExitCause, str]] = CounterFamily(
    name="gunicorn_requests_lost_total",
    labels=(
        "cause",
        "route",
    ),
    group="requests",
    closed={"cause": tuple(ExitCause)},
    help=(
        "Requests that were running, without a whole answer, when their worker ended; those whose head had "
        "not been read or that waited for a thread are not counted."
    ),
)
REQUESTS_UNANSWERED: CounterFamily[tuple[str, UnansweredReason]] = CounterFamily(
    name="gunicorn_requests_unanswered_total",
    labels=(
        "route",
        "reason",
    ),
    group="requests",
    closed={"reason": tuple(UnansweredReason)},
    help="Requests that got no status line though their worker went on, by reason.",
)

FAMILIES: tuple[MetricSpec, ...] = (
    REQUESTS,
    REQUEST_DURATION_SECONDS,
    RESPONSE_START_SECONDS,
    REQUEST_SIZE_BYTES,
    RESPONSE_SIZE_BYTES,
    REQUEST_CPU_SECONDS,
    FAILED_REQUESTS,
    INVALID_REQUESTS,
    CLIENT_DISCONNECTS,
    REQUEST_QUEUE_SECONDS,
    REQUESTS_LOST,
    REQUESTS_UNANSWERED,
)
