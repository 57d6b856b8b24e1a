"""The cap on label sets of a page, whose families have the label sets of all slots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from promgun.metrics.label_sets import LabelCap, Values, fold
from promgun.store.own_families import Folded

#: The most sets of a family that a page remembers; a store holds fewer (``store.row_reader``) unless it is damaged.
_MOST_DECIDED = 100_000


class PageCaps:
    """The caps of a page's families, kept between pages: a set that was shown stays shown.

    Sets are decided on in the order of their births. A set may be born while a page is read, behind the reader's back,
    and a reload may change the cap: neither moves what has been decided.
    """

    def __init__(self) -> None:
        self._caps: dict[tuple[str, tuple[str, ...]], LabelCap] = {}

    def folded(self, cap: int, family: str, names: Sequence[str], sets: Iterable[Values]) -> dict[Values, Folded]:
        """Return, for each of ``sets`` that is folded, the set that it is shown as.

        ``sets`` must be in the order of their births; at most ``cap`` of them stay unchanged.
        """
        identity = family, tuple(names)
        decided = self._caps.get(identity)
        if decided is None or len(decided) > _MOST_DECIDED:
            decided = self._caps[identity] = LabelCap(names, cap)
        decided.cap = cap
        return {
            values: Folded(shown, at_page=values != fold(names, values))
            for values in sets
            if (shown := decided.shown_as(values)) != values
        }
