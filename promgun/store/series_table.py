"""A table of the application's series by key, limited in size and to names and labels that a page can contain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from promgun.store.format import SeriesKey
from promgun.store.series import Series, number, owner_label

#: The most series of one page; a family that does not fit is left out as a whole.
MOST_SERIES = 50_000
TOO_MANY = f"more than the {MOST_SERIES:,} series of one page"
#: The suffixes of sample names, by kind.
_SUFFIXES = {
    "counter": frozenset({"_total", "_created"}),
    "histogram": frozenset({"_bucket", "_sum", "_count", "_created"}),
    "summary": frozenset({"_sum", "_count", "_created"}),
    "gauge": frozenset({""}),
}


class SeriesTable:
    """Series by the kind of their file, their key, and their owner where each process has its own."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, str], Series] = {}
        self._families: set[tuple[str, str]] = set()
        #: families that did not fit or have an invalid series, by kind and name
        self._cut: set[tuple[str, str]] = set()

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another series."""
        return len(self._series) >= MOST_SERIES

    def whole_families(self) -> Iterator[Series]:
        """Yield every series but those of incomplete families, in the order in which they were found."""
        cut = self._cut
        return (series for series in self._series.values() if not cut or self.is_whole(series))

    def is_whole(self, series: Series) -> bool:
        """Whether the family of a series is shown, because all of it found room."""
        return (series.kind, series.family) not in self._cut

    def make_room(self, held: Iterable[Series]) -> bool:
        """When the table is full, forget series that no file has any more; return whether there is room now."""
        if not self.is_full:
            return False
        kept = {id(series) for series in held}
        self._series = {key: series for key, series in self._series.items() if id(series) in kept}
        self._families = {(series.kind, series.family) for series in self._series.values()}
        if len(self._series) >= MOST_SERIES:
            self._cut &= self._families
            return False
        # What did not fit is looked at again.
        self._cut.clear()
        return True

    def find(self, kind: str, key: str, parsed: SeriesKey | None, owner: str) -> Series | None:
        """Return the series of a key; ``None`` when the key is invalid for this kind, or when there is no room.

        ``owner`` is the value of the label ``pid`` for a gauge that each process has for itself, else empty.
        """
        identity = (kind, key, owner)
        series = self._series.get(identity)
        if series is None and parsed is not None:
            series = self._make(kind, parsed, owner)
            if series is not None:
                self._series[identity] = series
        return series

    def _make(self, kind: str, parsed: SeriesKey, owner: str) -> Series | None:
        family, sample, labels, documentation = parsed
        name, _, mode = kind.partition("_")
        if not family or not sample.startswith(family) or sample[len(family) :] not in _SUFFIXES[name]:
            return None
        if not _can_be_labels(name, labels):
            return None
        place = name, _printable(family)
        if self.is_full:
            if place in self._families:
                self._cut.add(place)
            return None
        self._families.add(place)
        if owner:
            labels = {**labels, owner_label(labels): owner}
        pairs = tuple(sorted((_printable(label), _printable(value)) for label, value in labels.items()))
        return Series(
            family=_printable(family),
            kind=name,
            mode=mode,
            sample=_printable(sample),
            labels=pairs,
            documentation=_printable(documentation),
            names=tuple(label for label, _ in pairs if label != "le" or name != "histogram"),
        )


def _can_be_labels(kind: str, labels: Mapping[str, str]) -> bool:
    """Whether a page with these labels can be parsed: one bad label makes a reader refuse the whole page.

    Names that begin with two underscores are reserved by Prometheus; prometheus_client 0.26 neither accepts nor parses
    them.
    """
    if any(not name or name.startswith("__") for name in labels):
        return False
    return kind != "histogram" or "le" not in labels or not math.isnan(number(labels["le"]))


def _printable(text: str) -> str:
    """Return ``text`` without halves of surrogate pairs: JSON can express them, a page in UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
