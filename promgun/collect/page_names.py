"""Which names a page has: two families must not write samples of one name, or readers refuse the whole page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from promgun.metrics.catalog import CATALOG
from promgun.metrics.families.promgun import STORE_ERRORS
from promgun.metrics.label_values import StoreErrorReason

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: The suffixes of sample names, by type (OpenMetrics 1.0, "Metric Types"). The bare name is reserved as well.
SUFFIXES = {
    "counter": frozenset({"_total", "_created"}),
    "gauge": frozenset({""}),
    "histogram": frozenset({"_bucket", "_sum", "_count", "_created"}),
    "gaugehistogram": frozenset({"_bucket", "_gsum", "_gcount"}),
    "summary": frozenset({"", "_sum", "_count", "_created"}),
    "info": frozenset({"_info"}),
    "stateset": frozenset({""}),
    "unknown": frozenset({""}),
}
_ALL = frozenset({"", *(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)})
_OURS = {f"{spec.family}{suffix}": spec.family for spec in CATALOG for suffix in _ALL}
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_:]")


class PageNames:
    """The names of one page: those of the catalogue from the start, whether they are shown or not."""

    def __init__(self, families: Iterable[Metric] = ()) -> None:
        #: the family that has the name, by name
        self._taken = dict(_OURS)
        for family in families:
            self._taken.update(dict.fromkeys(_names(family.name, family.type), family.name))

    def take(self, name: str, kind: str) -> str:
        """Take all names of a family; return the name of another family that has one of them, and take none, if there
        is such a family.
        """
        names = _names(name, kind)
        for taken in sorted(names & self._taken.keys()):
            return self._taken[taken]
        self._taken.update(dict.fromkeys(names, name))
        return ""


def _names(name: str, kind: str) -> set[str]:
    # Both encoders write an underscore for what names may not have (prometheus_client 0.26).
    name = _NOT_IN_NAMES.sub("_", name)
    return {name, *(f"{name}{suffix}" for suffix in SUFFIXES[kind])}


def count_refused(families: Sequence[Metric], refused: int) -> None:
    """Add families that cannot be shown to the page's count of what could not be read."""
    label = STORE_ERRORS.labels[0]
    for family in families if refused else ():
        if family.name == STORE_ERRORS.family:
            family.samples = [
                sample._replace(value=sample.value + refused)
                if sample.labels[label] == StoreErrorReason.CORRUPT
                else sample
                for sample in family.samples
            ]
