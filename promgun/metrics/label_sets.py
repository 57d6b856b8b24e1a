"""The cap on label sets: which sets of a family are shown as they are, and what the others become.

Only free labels are folded at first, those whose values the application or a client chooses. Beyond some folded sets
the method and the status are folded too: an application may let a client choose those. A worker asks for one set at a
time and knows its own slot alone; the page asks for those of all slots, in the order of their births.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from promgun.metrics.catalog import FREE_LABELS, OTHER_METHOD, OVERFLOW
from promgun.metrics.statuses import status_class

#: The values of a family's labels, in the order of their names.
Values = tuple[str, ...]
#: Folded sets that keep their method and status.
MOST_FOLDED = 32


def has_free_labels(names: Sequence[str]) -> bool:
    """Whether a family with these labels can have any number of label sets."""
    return not FREE_LABELS.isdisjoint(names)


def fold(names: Sequence[str], values: Values) -> Values:
    """Return ``values`` with :data:`OVERFLOW` for each free label."""
    return tuple(OVERFLOW if name in FREE_LABELS else value for name, value in zip(names, values, strict=True))


def fold_whole(names: Sequence[str], values: Values) -> Values:
    """Return a folded set with ``_OTHER`` for the method, and the class of the status in its place."""
    return tuple(
        OTHER_METHOD if name == "method" else status_class(value) if name == "status" else value
        for name, value in zip(names, fold(names, values), strict=True)
    )


class LabelCap:
    """Decides for one family, set by set, in the order in which they come; what was decided never changes.

    At most ``cap`` sets stand as they are, then :data:`MOST_FOLDED` with their free labels folded, then those folded
    whole: a few dozen at the most.
    """

    def __init__(self, names: Sequence[str], cap: int) -> None:
        self._names = tuple(names)
        self._free = has_free_labels(names)
        self._cap = cap
        self._shown: dict[Values, Values] = {}
        self._folded: set[Values] = set()
        self._held = 0

    def __len__(self) -> int:
        """Return how many sets were decided on."""
        return len(self._shown)

    def shown_as(self, values: Values) -> Values:
        """Return the set that ``values`` counts under."""
        shown = self._shown.get(values)
        if shown is None:
            shown = self._decide(values) if self._free else values
            self._shown[values] = shown
        return shown

    def _decide(self, values: Values) -> Values:
        folded = fold(self._names, values)
        if folded != values and self._held < self._cap:
            self._held += 1
            return values
        return self.folded(values)

    def is_full_for(self, values: Values) -> bool:
        """Whether ``values`` would be folded."""
        return self._free and values not in self._shown and self._held >= self._cap

    def folded(self, values: Values) -> Values:
        """Return what ``values`` are folded into, without remembering them: a client may ask for any number of sets."""
        folded = fold(self._names, values)
        if folded not in self._folded:
            if len(self._folded) >= MOST_FOLDED:
                return fold_whole(self._names, values)
            self._folded.add(folded)
        return folded


def folded_sets(names: Sequence[str], sets: Iterable[Values], cap: int) -> dict[Values, Values]:
    """Return those of ``sets``, given in the order of their births, that are shown as another, with what they are
    shown as.
    """
    decided = LabelCap(names, cap)
    return {values: shown for values in sets if (shown := decided.shown_as(values)) != values}
