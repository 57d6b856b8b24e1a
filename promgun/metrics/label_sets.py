"""The cap on label sets: which sets of a family are shown as they are, and what the others become.

Only free labels are folded, those whose values the application or a client chooses; all others have a bounded number of
values. A worker asks for one set at a time and knows its own alone; the page asks for those of all workers at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from promgun.metrics.catalog import FREE_LABELS, OVERFLOW

#: The values of a family's labels, in the order of their names.
Values = tuple[str, ...]


def has_free_labels(names: Sequence[str]) -> bool:
    """Whether a family with these labels can have any number of label sets."""
    return not FREE_LABELS.isdisjoint(names)


def fold(names: Sequence[str], values: Values) -> Values:
    """Return ``values`` with :data:`OVERFLOW` for each free label."""
    return tuple(OVERFLOW if name in FREE_LABELS else value for name, value in zip(names, values, strict=True))


def is_folded(names: Sequence[str], values: Values) -> bool:
    """Whether a set is one that others were folded into."""
    return any(value == OVERFLOW for name, value in zip(names, values, strict=True) if name in FREE_LABELS)


def has_room(held: int, cap: int) -> bool:
    """Whether a family that holds so many sets may hold another one."""
    return held < cap


def sets_to_fold(names: Sequence[str], sets: Collection[Values], cap: int) -> frozenset[Values]:
    """Return the sets beyond the first ``cap`` in alphabetical order; those that others were folded into do not count.

    Sets are only ever added. In this order one that was folded never comes back, and the folded set's total never
    sinks; by size or by age of a worker it could.
    """
    if has_room(len(sets) - 1, cap):
        return frozenset()
    plain = sorted(values for values in sets if not is_folded(names, values))
    return frozenset(values for held, values in enumerate(plain) if not has_room(held, cap))
