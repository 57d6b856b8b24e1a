"""The contract: a table of every metric family with its type, labels and meaning.

``promgun metrics list``, the docs page, the recorder, the reader and the tests all use this one table.
"""

from __future__ import annotations

from collections.abc import Mapping

from promgun.metrics.families import endpoint, listeners, master, promgun, requests, websockets, workers
from promgun.metrics.spec import MetricSpec

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
