"""The contract: a table of every metric family with its type, labels and meaning.

``promgun metrics list``, the docs page, the recorder, the reader and the tests all use this one table.
"""

from __future__ import annotations

from collections.abc import Mapping

from promgun.metrics.families import endpoint, listeners, master, promgun, requests, websockets, workers
from promgun.metrics.spec import MetricSpec

#: Upper bounds in seconds, as OpenTelemetry advises for http.server.request.duration (semantic conventions 1.44).
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
#: Upper bounds in bytes.
SIZE_BUCKETS = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0)

#: Methods of RFC 9110 (section 9) and PATCH (RFC 5789); any other becomes :data:`OTHER_METHOD`.
METHODS = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
OTHER_METHOD = "_OTHER"
#: The value of the free labels in a folded label set.
OVERFLOW = "_OVERFLOW"
#: Labels whose values the application or a client can choose; only these are folded at first.
FREE_LABELS = frozenset({"route", "error_type"})

CATALOG: tuple[MetricSpec, ...] = (
    *requests.FAMILIES,
    *websockets.FAMILIES,
    *workers.FAMILIES,
    *master.FAMILIES,
    *listeners.FAMILIES,
    *promgun.FAMILIES,
    *endpoint.FAMILIES,
)
BY_NAME: Mapping[str, MetricSpec] = {spec.name: spec for spec in CATALOG}
