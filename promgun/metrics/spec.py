"""Handles of metric families: name, meaning, and the types of the label values.

The handles are defined in ``metrics.families``, a module for each group. Counting code uses a handle, never a string:
``counters.inc(WORKER_EXITS, (ExitCause.OOM,))``. A wrong family, label or value is a type error.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Generic, TypeVar

#: The types of a family's label values, in the order of its labels.
Labels = TypeVar("Labels", bound=tuple[str, ...])


# Compared by identity: each family is made once, and hashing by identity is fast in a dict.
class MetricSpec:
    """One family of any kind.

    ``labels`` are names in order. ``closed`` lists the values of labels whose set is known beforehand, so that their
    series exist from the start. ``buckets`` names the option with a histogram's bounds (duration or size); a histogram
    without it has its own ``bounds``.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        *,
        name: str,
        help: str,  # noqa: A002 - as Prometheus calls it
        group: str,
        labels: tuple[str, ...] = (),
        closed: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
        buckets: str = "",
        bounds: tuple[float, ...] = (),
    ) -> None:
        self.name = name
        self.help = help
        self.group = group
        self.labels = labels
        self.closed = closed
        self.buckets = buckets
        self.bounds = bounds

    @property
    def family(self) -> str:
        """The name without ``_total``, as prometheus_client and OpenMetrics name a counter's family."""
        return self.name.removesuffix("_total") if self.kind == "counter" else self.name


class CounterFamily(MetricSpec, Generic[Labels]):
    """A counter whose label values have the types ``Labels``."""

    kind = "counter"


class GaugeFamily(MetricSpec, Generic[Labels]):
    """A gauge whose label values have the types ``Labels``."""

    kind = "gauge"


class HistogramFamily(MetricSpec, Generic[Labels]):
    """A histogram whose label values, without ``le``, have the types ``Labels``."""

    kind = "histogram"

    @property
    def bucket(self) -> str:
        """The name of its bucket samples."""
        return f"{self.name}_bucket"
