"""Families that are computed for each page, as label sets and their values; samples are made for whoever asks for them.

Their label sets change when workers come and go. As long as they do not, such a family has the same layout on each
page, by which a writer of lines knows that only values have changed (``exposition.lines``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from promgun.collect.row_family import RowFamily
from promgun.collect.series_family import SeriesFamily
from promgun.metrics.spec import MetricSpec

Sets = tuple[tuple[str, ...], ...]
Pairs = tuple[tuple[str, str], ...]


class LiveLayout:
    """What a family of the catalogue has on each page with these label sets; all have the labels ``constant`` too."""

    #: a counter or a gauge has no buckets
    has_negative_bound = False

    def __init__(self, spec: MetricSpec, sets: Sets, constant: Pairs) -> None:
        self.sets = sets
        self.constant = constant
        self.built = Metric(spec.family, spec.help, spec.kind)
        self.built.samples = [
            Sample(spec.name, {**dict(zip(spec.labels, map(str, values), strict=True)), **dict(constant)}, 0.0)
            for values in sets
        ]

    def is_of(self, sets: Sets, constant: Pairs) -> bool:
        """Whether a family with these labels has this layout."""
        return (sets is self.sets or sets == self.sets) and constant == self.constant


class LiveFamilies:
    """Makes computed families, page after page."""

    def __init__(self) -> None:
        self._layouts: dict[MetricSpec, LiveLayout] = {}

    def family(self, spec: MetricSpec, sets: Sets, values: Sequence[float], constant: Pairs) -> LiveFamily:
        """Return a family that has a sample for each of ``sets``."""
        layout = self._layouts.get(spec)
        if layout is None or not layout.is_of(sets, constant):
            layout = self._layouts[spec] = LiveLayout(spec, sets, constant)
        return LiveFamily(layout, values)


class LiveFamily(SeriesFamily):
    """A computed family on one page."""

    def __init__(self, layout: LiveLayout, values: Sequence[float]) -> None:
        super().__init__(layout, values)
        self.constant = dict(layout.constant)


def constant_labels(page: Iterable[Metric]) -> dict[str, str]:
    """Return the labels that every series of ours on a page has."""
    return next((family.constant for family in page if isinstance(family, (RowFamily, LiveFamily))), {})
