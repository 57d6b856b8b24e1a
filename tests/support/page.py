"""A page of metrics, parsed, and questions to it."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from prometheus_client.samples import Sample


class Page:
    """One exposition in the text format.

    Labels that a question leaves out may have any value; ``text`` is the page as it came.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        families = list(text_string_to_metric_families(text))
        # A gauge and a counter may differ in the suffix only, which is no part of a counter's family.
        self.families = {family.name: family for family in families}
        self.samples = [sample for family in families for sample in family.samples]

    def since(self, before: Page) -> Page:
        """Return a page of what was counted since an earlier one; gauges are as they are."""
        then = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in before.samples}
        gauges = {
            sample.name for family in self.families.values() if family.type == "gauge" for sample in family.samples
        }
        page = copy(self)
        page.samples = [
            sample
            if sample.name in gauges
            else sample._replace(value=sample.value - then.get((sample.name, *sorted(sample.labels.items())), 0.0))
            for sample in self.samples
        ]
        return page

    def select(self, name: str, **labels: str | int) -> list[Sample]:
        """Return the samples of this name that carry at least these labels."""
        wanted = {(label, str(value)) for label, value in labels.items()}
        return [sample for sample in self.samples if sample.name == name and wanted <= sample.labels.items()]

    def sum(self, name: str, **labels: str | int) -> float:
        """Return the sum of the selected samples; 0 when there are none."""
        return sum(sample.value for sample in self.select(name, **labels))

    def value(self, name: str, **labels: str | int) -> float | None:
        """Return the value of the one selected sample, ``None`` when there is none; several are an error."""
        found = self.select(name, **labels)
        assert len(found) <= 1, f"{len(found)} samples match {name} {labels}"
        return found[0].value if found else None

    def by(self, label: str, name: str, **labels: str | int) -> dict[str, float]:
        """Return the sums of the selected samples by the value of one label, without those that are 0."""
        sums: dict[str, float] = {}
        for sample in self.select(name, **labels):
            sums[sample.labels[label]] = sums.get(sample.labels[label], 0) + sample.value
        return {value: total for value, total in sums.items() if total}
