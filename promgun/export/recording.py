"""Recording rules as data: queries that dashboards, alerts and autoscaling share, computed once.

The names do not change with the options. ``<...>`` is filled in by :mod:`promgun.export.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ERRORS = 'status=~"5.."'


@dataclass(frozen=True, slots=True)
class Record:
    """One recording rule; ``labels`` are added to what it records."""

    name: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)


RECORDS: tuple[Record, ...] = (
    Record(
        "instance:gunicorn_requests:rate",
        "sum by (<by>, instance) (rate(gunicorn_requests_total{<select>}[<window>]))",
    ),
    Record(
        "instance:gunicorn_request_errors:ratio",
        "("
        f"sum by (<by>, instance) (rate(gunicorn_requests_total{{<select>, {ERRORS}}}[<window>]))"
        " or 0 * instance:gunicorn_requests:rate{<select>}"
        ") / instance:gunicorn_requests:rate{<select>}",
    ),
    Record("job:gunicorn_requests:rate", "sum by (<by>) (instance:gunicorn_requests:rate{<select>})"),
    Record(
        "job:gunicorn_request_errors:ratio",
        "("
        f"sum by (<by>) (rate(gunicorn_requests_total{{<select>, {ERRORS}}}[<window>]))"
        " or 0 * job:gunicorn_requests:rate{<select>}"
        ") / job:gunicorn_requests:rate{<select>}",
    ),
    # Saturation is demand by capacity; the demand is the requests that are served, the connections that wait, and the
    # websockets that are open.
    Record("instance:gunicorn_capacity:sum", "sum by (<by>, instance) (gunicorn_worker_capacity{<select>})"),
    Record(
        "instance:gunicorn_busy:rate",
        "sum by (<by>, instance) (rate(gunicorn_worker_busy_seconds_total{<select>}[<window>]))",
    ),
    Record(
        "instance:gunicorn_demand:sum",
        "instance:gunicorn_busy:rate{<select>} + ("
        "sum by (<by>, instance) (avg_over_time(gunicorn_listener_queue_connections{<select>}[<window>]))"
        " or 0 * instance:gunicorn_busy:rate{<select>}) + ("
        "sum by (<by>, instance) (avg_over_time(gunicorn_websocket_connections{<select>}[<window>]))"
        " or 0 * instance:gunicorn_busy:rate{<select>})",
    ),
    Record(
        "instance:gunicorn_utilisation:ratio",
        "instance:gunicorn_busy:rate{<select>} / instance:gunicorn_capacity:sum{<select>}",
    ),
    Record(
        "instance:gunicorn_saturation:ratio",
        "instance:gunicorn_demand:sum{<select>} / instance:gunicorn_capacity:sum{<select>}",
    ),
    Record(
        "job:gunicorn_saturation:ratio",
        "sum by (<by>) (instance:gunicorn_demand:sum{<select>})"
        " / sum by (<by>) (instance:gunicorn_capacity:sum{<select>})",
    ),
    Record(
        "instance:gunicorn_listener_queue:ratio",
        "max by (<by>, instance) ("
        "avg_over_time(gunicorn_listener_queue_connections{<select>}[<window>])"
        " / gunicorn_listener_queue_limit{<select>})",
    ),
)


def quantile(value: str) -> Record:
    """Return the rule for one quantile of request durations."""
    return Record(
        "job:gunicorn_request_duration_seconds:quantile",
        f"histogram_quantile({value},"
        " sum by (<by>, le) (rate(gunicorn_request_duration_seconds_bucket{<select>}[<window>])))",
        {"quantile": value},
    )
