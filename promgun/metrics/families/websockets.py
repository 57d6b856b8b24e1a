"""Families of websockets, which have their own book beside that of the requests."""

from __future__ import annotations

from promgun.metrics.label_values import MessageDirection, WebsocketResult
from promgun.metrics.spec import CounterFamily, GaugeFamily, HistogramFamily, MetricSpec

WEBSOCKETS_OPEN: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_websocket_connections",
    labels=("worker_id",),
    group="websockets",
    help="Websockets that are open now.",
)
WEBSOCKET_CONNECTIONS: CounterFamily[tuple[str, WebsocketResult]] = CounterFamily(
    name="gunicorn_websocket_connections_total",
    labels=(
        "route",
        "result",
    ),
    group="websockets",
    closed={"result": tuple(WebsocketResult)},
    help=(
        "Requests for a websocket: accepted, refused by an answer of HTTP, or failed (500, or no answer). Those that "
        "WSGI applications do not accept are requests only."
    ),
)
WEBSOCKET_DURATION_SECONDS: HistogramFamily[tuple[str]] = HistogramFamily(
    name="gunicorn_websocket_duration_seconds",
    labels=("route",),
    group="websockets",
    bounds=(1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 14400.0, 86400.0),
    help="Time from the parsed request head to the end of the websocket.",
)
WEBSOCKET_MESSAGES: CounterFamily[tuple[MessageDirection]] = CounterFamily(
    name="gunicorn_websocket_messages_total",
    labels=("direction",),
    group="websockets",
    help="Messages of ASGI applications' websockets, whole ones, without pings and closes.",
)
WEBSOCKET_CLOSES: CounterFamily[tuple[str]] = CounterFamily(
    name="gunicorn_websocket_closes_total",
    labels=("code",),
    group="websockets",
    help=(
        "Ends of ASGI applications' websockets, by the close code that was sent or received first: 1000 to 1015 of "
        "IANA's registry (1006: none was), 3xxx, 4xxx, else _OTHER."
    ),
)

FAMILIES: tuple[MetricSpec, ...] = (
    WEBSOCKETS_OPEN,
    WEBSOCKET_CONNECTIONS,
    WEBSOCKET_DURATION_SECONDS,
    WEBSOCKET_MESSAGES,
    WEBSOCKET_CLOSES,
)

#: The code of a connection that ended without a close frame (RFC 6455, section 7.1.5).
ABNORMAL_CLOSE = "1006"
_REGISTERED = range(1000, 1016)


def close_label(code: int) -> str:
    """Return the label value of a close code."""
    if code in _REGISTERED:
        return str(code)
    return {3: "3xxx", 4: "4xxx"}.get(code // 1000, "_OTHER")
