"""One family of ours as numbers by label set; samples, buckets and all, are made for whoever asks for them.

A page of a thousand label sets has tens of thousands of samples. The text formats need none of them: lines are written
from the numbers (``exposition.row_lines``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from promgun.metrics.spec import MetricSpec
from promgun.store.own_families import Rows, Values, bucket_texts


class RowFamily(Metric):
    """A family of the catalogue.

    ``names`` are the labels, in the order of a set's values. ``rows`` has the numbers of each label set; it is empty
    once a caller has put other samples in their place. ``constant`` are labels that every sample has as well.
    """

    def __init__(
        self, spec: MetricSpec, names: tuple[str, ...], rows: Rows, constant: Sequence[tuple[str, str]] = ()
    ) -> None:
        # before the base class, which sets samples
        self.rows: Rows = {}
        super().__init__(spec.family, spec.help, spec.kind)
        self.names = names
        self.constant = dict(constant)
        #: the name of a counter's or gauge's samples
        self.sample = spec.name
        self.rows = rows

    @property
    def samples(self) -> list[Sample]:
        """Every sample, in the order of the lines, made anew at each call."""
        return list(self._made()) if self.rows else self._samples

    @samples.setter
    def samples(self, samples: list[Sample]) -> None:
        self.rows = {}
        self._samples = samples

    def labels_of(self, values: Values) -> dict[str, str]:
        """Return all labels of the samples of one label set, but for ``le``."""
        return dict(zip(self.names, values, strict=True)) | self.constant

    def _made(self) -> Iterator[Sample]:
        for values, (bounds, numbers) in self.rows.items():
            labels = self.labels_of(values)
            if not bounds:
                yield Sample(self.sample, labels, numbers[0])
                continue
            total = 0.0
            for text, total in zip(bucket_texts(bounds), accumulate(numbers[:-1]), strict=True):
                yield Sample(f"{self.name}_bucket", {**labels, "le": text}, total)
            yield Sample(f"{self.name}_count", labels, total)
            yield Sample(f"{self.name}_sum", labels, numbers[-1])
