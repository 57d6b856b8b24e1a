"""The cap on label sets: which sets of a family are shown unchanged, and what the others are folded into.

At first only free labels are folded, whose values the application or a client chooses. After a number of folded sets
the method and the status are folded too, because an application may let a client choose those. A worker asks for one
set at a time and knows only its own slot; the page asks for the sets of all slots, in the order of their births.
"""

from __future__ import annotations

from collections.abc import Sequence

from promgun.metrics.statuses import status_class

#: Methods of RFC 9110 (section 9) and PATCH (RFC 5789); any other becomes :data:`OTHER_METHOD`.
METHODS = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
OTHER_METHOD = "_OTHER"
#: The value of the free labels in a folded label set.
OVERFLOW = "_OVERFLOW"
#: Labels whose values the application or a client can choose; only these are folded at first.
FREE_LABELS = frozenset({"route", "error_type"})
#: The values of a family's labels, in the order of their names.
Values = tuple[str, ...]
#: The most folded sets that keep their method and status.
MOST_FOLDED = 32


def has_free_labels(names: Sequence[str]) -> bool:
    """Whether a family with these labels can have any number of label sets."""
    return not FREE_LABELS.isdisjoint(names)


def fold(names: Sequence[str], values: Values) -> Values:
    """Return ``values`` with :data:`OVERFLOW` for each free label."""
    return tuple(OVERFLOW if name in FREE_LABELS else value for name, value in zip(names, values, strict=True))


def fold_whole(names: Sequence[str], values: Values) -> Values:
    """Return a folded set whose method is ``_OTHER`` and whose status is replaced by its class."""
    return tuple(
        OTHER_METHOD if name == "method" else status_class(value) if name == "status" else value
        for name, value in zip(names, fold(names, values), strict=True)
    )


class LabelCap:
    """Decides for one family how each label set is shown, in the order of their arrival; decisions never change.

    At most ``cap`` sets stay unchanged, the next :data:`MOST_FOLDED` have their free labels folded, and the rest are
    folded whole, which gives a few dozen sets at most.
    """

    def __init__(self, names: Sequence[str], cap: int) -> None:
        self._names = tuple(names)
        self._free = [position for position, name in enumerate(names) if name in FREE_LABELS]
        self.cap = cap
        self._shown: dict[Values, Values] = {}
        self._folded: set[Values] = set()
        #: how many sets stay unchanged
        self.held = 0

    def __len__(self) -> int:
        """Return the number of sets decided on."""
        return len(self._shown)

    def shown_as(self, values: Values) -> Values:
        """Return the set under which ``values`` is counted."""
        shown = self._shown.get(values)
        if shown is not None:
            return shown
        if self.held < self.cap:
            for position in self._free:
                if values[position] != OVERFLOW:
                    self.held += 1
                    shown = values
                    break
        if shown is None:
            shown = self.folded(values) if self._free else values
        self._shown[values] = shown
        return shown

    def is_full_for(self, values: Values) -> bool:
        """Whether ``values`` would be folded."""
        return self.held >= self.cap and bool(self._free) and values not in self._shown

    def folded(self, values: Values) -> Values:
        """Return what ``values`` is folded into, without remembering it: a client may ask for any number of sets."""
        folded = fold(self._names, values)
        if folded not in self._folded:
            if len(self._folded) >= MOST_FOLDED:
                return fold_whole(self._names, values)
            self._folded.add(folded)
        return folded
