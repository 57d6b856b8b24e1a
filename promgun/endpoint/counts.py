"""What the endpoint counts of itself: requests that it refused, and readings of its web configuration."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from promgun.collect.live_family import constant_labels
from promgun.metrics.catalog import CATALOG
from promgun.metrics.families.endpoint import ENDPOINT_REFUSED, WEB_CONFIG_RELOADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promgun.metrics.label_values import ReloadResult
    from promgun.metrics.late_label_values import EndpointRefusal
    from promgun.metrics.spec import MetricSpec

_OURS = frozenset(spec.family for spec in CATALOG)


class EndpointCounts:
    """Counters of one metrics process; they begin at 0 with it. Raised in the event loop, read from any thread."""

    def __init__(self) -> None:
        self._refused: Counter[str] = Counter()
        self._reloads: Counter[str] = Counter()

    def refuse(self, reason: EndpointRefusal) -> None:
        """Count a request, or a connection, that was refused."""
        self._refused[reason] += 1

    def reload(self, result: ReloadResult) -> None:
        """Count a reading of changed files."""
        self._reloads[result] += 1

    def families(self, constant: Mapping[str, str]) -> list[Metric]:
        """Return both families, with every label value that there is, and with the labels ``constant``."""
        pairs = ((ENDPOINT_REFUSED, self._refused), (WEB_CONFIG_RELOADS, self._reloads))
        return [_family(spec, counts, constant) for spec, counts in pairs]

    def join(self, page: Sequence[Metric]) -> list[Metric]:
        """Return a page with both families behind those of the catalogue and before the application's."""
        ours = sum(family.name in _OURS for family in page)
        return [*page[:ours], *self.families(constant_labels(page)), *page[ours:]]


def _family(spec: MetricSpec, counts: Mapping[str, int], constant: Mapping[str, str]) -> Metric:
    family = Metric(spec.family, spec.help, spec.kind)
    ((label, values),) = spec.closed.items()
    for value in values:
        family.add_sample(spec.name, {label: str(value), **constant}, float(counts.get(value, 0)))
    return family
