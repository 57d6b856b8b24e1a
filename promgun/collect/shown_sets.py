"""How label sets are shown: excluded routes, grouped statuses and the cap, applied to what workers have counted.

Workers know nothing of ``--metrics-exclude-route`` and ``--metrics-group-status``: a reload changes at once how all is
shown, what was counted before included. The cap comes last, so that it holds for what is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import partial
from typing import NamedTuple

from promgun.collect.page_caps import PageCaps
from promgun.metrics.catalog import BY_NAME
from promgun.metrics.label_sets import Values
from promgun.metrics.statuses import status_class
from promgun.store.master_info import MasterFacts
from promgun.store.own_families import Fold, Folded
from promgun.store.row_format import is_label

#: The label of requests whose route is not known, or is excluded.
NO_ROUTE = ""
#: The most sets of which is kept how they are shown; a store holds fewer (``store.row_reader``) unless it is damaged.
_MOST_KEPT = 100_000
_TAKEN = frozenset({"le", *(label for spec in BY_NAME.values() for label in spec.labels)})


class Grouping(NamedTuple):
    """Which label sets are shown as one: of routes that match ``exclude_routes``, of a class of statuses."""

    exclude_routes: tuple[str, ...] = ()
    group_status: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """How our series are shown, as the newest master has it: the grouping, and the constant labels by name."""

    grouping: Grouping
    labels: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, facts: MasterFacts | None) -> Shown:
        """Return what a master's facts say; a label that no page can have, of a damaged file, is left out."""
        if facts is None:
            return cls(Grouping(), ())
        pairs = (text.partition("=") for text in facts.labels)
        labels = {name: value for name, _, value in pairs if is_label(name) and name not in _TAKEN}
        return cls(Grouping(facts.exclude_routes, facts.group_status), tuple(labels.items()))


class ShownSets:
    """Decides under which label set each is shown, page after page: what was shown stays shown.

    Another grouping makes other sets, on which the cap decides anew.
    """

    def __init__(self) -> None:
        self._use(Grouping())

    def _use(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._caps = PageCaps()
        self._grouped: dict[tuple[str, ...], dict[Values, Values]] = {}
        self._excluded = re.compile("|".join(map(translate, grouping.exclude_routes)) or "(?!)").match

    def fold(self, cap: int, grouping: Grouping) -> Fold:
        """Return the function that decides with this cap and grouping."""
        if grouping != self._grouping:
            self._use(grouping)
        return partial(self._folded if any(grouping) else self._caps.folded, cap)

    def _folded(self, cap: int, family: str, names: Sequence[str], sets: Iterable[Values]) -> dict[Values, Folded]:
        """Return, for each of ``sets`` that is not shown as it is, the set that it is shown as."""
        grouped = self._group(tuple(names), sets)
        folded = self._caps.folded(cap, family, names, grouped.values())
        return {
            values: folded.get(together) or Folded(together, at_page=False)
            for values, together in grouped.items()
            if together in folded or together != values
        }

    def _group(self, names: tuple[str, ...], sets: Iterable[Values]) -> dict[Values, Values]:
        """Return the set in which each is counted, in the order of ``sets``."""
        known = self._grouped.setdefault(names, {})
        if len(known) > _MOST_KEPT:
            known.clear()
        for values in sets:
            if values not in known:
                known[values] = tuple(map(self._group_value, names, values))
        return {values: known[values] for values in sets}

    def _group_value(self, name: str, value: str) -> str:
        if name == "route" and self._excluded(value):
            return NO_ROUTE
        if name == "status" and self._grouping.group_status:
            return status_class(value)
        return value
