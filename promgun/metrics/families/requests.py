"""Families of requests, counted by workers."""

from __future__ import annotations

from promgun.metrics.label_values import DisconnectPhase, ExitCause, QueueSource, UnansweredReason, WebsocketResult
from promgun.metrics.spec import CounterFamily, HistogramFamily, MetricSpec

REQUESTS = CounterFamily[tuple[str, str, str]](
    name="gunicorn_requests_total",
    labels=(
        "method",
        "route",
        "status",
    ),
    group="requests",
    help="Requests answered, by the application or by the worker for it.",
)
REQUEST_DURATION_SECONDS = HistogramFamily[tuple[str, str, str]](
    name="gunicorn_request_duration_seconds",
    labels=(
        "method",
        "route",
        "status",
    ),
    group="requests",
    buckets="duration",
    help="From the parsed head to the last byte handed to the socket.",
)
REQUEST_SIZE_BYTES = HistogramFamily[tuple[str, str]](
    name="gunicorn_request_size_bytes",
    labels=(
        "method",
        "route",
    ),
    group="requests",
    buckets="size",
    help="Size of the request body, as received.",
)
RESPONSE_SIZE_BYTES = HistogramFamily[tuple[str, str]](
    name="gunicorn_response_size_bytes",
    labels=(
        "method",
        "route",
    ),
    group="requests",
    buckets="size",
    help="Size of the response body, as sent.",
)
FAILED_REQUESTS = CounterFamily[tuple[str, str, str]](
    name="gunicorn_failed_requests_total",
    labels=(
        "method",
        "route",
        "error_type",
    ),
    group="requests",
    help="Requests that an exception left the application for, by its class.",
)
INVALID_REQUESTS = CounterFamily[tuple[str]](
    name="gunicorn_invalid_requests_total",
    labels=("error_type",),
    group="requests",
    help="Requests refused before the application was called.",
)
CLIENT_DISCONNECTS = CounterFamily[tuple[DisconnectPhase]](
    name="gunicorn_client_disconnects_total",
    labels=("phase",),
    group="requests",
    closed={"phase": tuple(DisconnectPhase)},
    help="Requests whose client left before the end.",
)
REQUEST_QUEUE_SECONDS = HistogramFamily[tuple[QueueSource]](
    name="gunicorn_request_queue_seconds",
    labels=("source",),
    group="requests",
    closed={"source": tuple(QueueSource)},
    buckets="duration",
    help="Waiting before a worker took the request: in the accept queue, or since the proxy's header said.",
)
REQUESTS_LOST = CounterFamily[tuple[ExitCause, str]](
    name="gunicorn_requests_lost_total",
    labels=(
        "cause",
        "route",
    ),
    group="requests",
    closed={"cause": tuple(ExitCause)},
    help=(
        "Requests whose worker ended while they were running, without a whole answer; connections whose head had not "
        "been read, or that waited for a thread, are not among them."
    ),
)
REQUESTS_UNANSWERED = CounterFamily[tuple[str, UnansweredReason]](
    name="gunicorn_requests_unanswered_total",
    labels=(
        "route",
        "reason",
    ),
    group="requests",
    closed={"reason": tuple(UnansweredReason)},
    help="Requests that a living worker left without a status line.",
)
WEBSOCKET_CONNECTIONS = CounterFamily[tuple[str, WebsocketResult]](
    name="gunicorn_websocket_connections_total",
    labels=(
        "route",
        "result",
    ),
    group="requests",
    closed={"result": tuple(WebsocketResult)},
    help="Requests that became websockets; those of WSGI applications are counted when they end.",
)
WEBSOCKET_DURATION_SECONDS = HistogramFamily[tuple[str]](
    name="gunicorn_websocket_duration_seconds",
    labels=("route",),
    group="requests",
    bounds=(1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 14400.0, 86400.0),
    help="From the parsed head to the end of the websocket.",
)

FAMILIES: tuple[MetricSpec, ...] = (
    REQUESTS,
    REQUEST_DURATION_SECONDS,
    REQUEST_SIZE_BYTES,
    RESPONSE_SIZE_BYTES,
    FAILED_REQUESTS,
    INVALID_REQUESTS,
    CLIENT_DISCONNECTS,
    REQUEST_QUEUE_SECONDS,
    REQUESTS_LOST,
    REQUESTS_UNANSWERED,
    WEBSOCKET_CONNECTIONS,
    WEBSOCKET_DURATION_SECONDS,
)
