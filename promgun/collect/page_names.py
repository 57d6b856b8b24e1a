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
_OURS = frozenset(f"{spec.family}{suffix}" for spec in CATALOG for suffix in _ALL)
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_:]")


class PageNames:
    """The names of one page: those of the catalogue from the start, whether they are shown or not."""

    def __init__(self, families: Iterable[Metric] = ()) -> None:
        self._taken = set(_OURS)
        for family in families:
            self._taken |= _names(family.name, family.type)

    def take(self, name: str, kind: str) -> bool:
        """Take all names of a family; return false, and take none, when another family has one of them."""
        names = _names(name, kind)
        if not names.isdisjoint(self._taken):
            return False
        self._taken |= names
        return True


def _names(name: str, kind: str) -> set[str]:
    # Both encoders write an underscore for what names may not have (prometheus_client 0.26).
    name = _NOT_IN_NAMES.sub("_", name)
    return {name, *(f"{name}{suffix}" for suffix in SUFFIXES[kind])}


def count_refused(families: Sequence[Metric], refused: int) -> None:
    """Add families that cannot be shown to the page's count of what could not be read."""
    labels = {STORE_ERRORS.labels[0]: str(StoreErrorReason.CORRUPT)}
    for family in families if refused else ():
        if family.name == STORE_ERRORS.family:
            family.samples = [
                sample._replace(value=sample.value + refused) if sample.labels == labels else sample
                for sample in family.samples
            ]
