"""Handles of metric families: name, meaning, and the types of the label values.

The handles are defined in ``metrics.families``, a module for each group. Counting code uses a handle, never a string:
``counters.inc(WORKER_EXITS, (ExitCause.OOM,))``. A wrong family, label or value is a type error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

#: The types of a family's label values, in the order of its labels.
Labels = TypeVar("Labels", bound=tuple[str, ...])


# Compared by identity: each family is made once, and hashing by identity is fast in a dict.
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MetricSpec:
    """One family of any kind.

    ``labels`` are names in order. ``closed`` lists the values of labels whose set is known beforehand, so that their
    series exist from the start. ``buckets`` names the option with a histogram's bounds (duration or size); a histogram
    without it has its own ``bounds``.
    """

    kind: ClassVar[str]

    name: str
    help: str
    labels: tuple[str, ...] = ()
    group: str
    closed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: str = ""
    bounds: tuple[float, ...] = ()

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
