"""The application's families on a page: those that a page can have, each name once."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client.core import Metric

from promgun.collect.page_names import PageNames
from promgun.collect.series_family import FamilyLayout
from promgun.metrics.catalog import CATALOG
from promgun.store.reader import families_of
from promgun.store.series import Series

_OWN = frozenset(spec.family for spec in CATALOG)
_MOST_LEFT_OUT = 1000


class AppFamilies:
    """Makes the application's families, page after page; what depends on names and labels alone is kept.

    ``log`` gets a line for each family that cannot be shown, once: two metrics of one name are no damage, so nothing
    else tells of them.
    """

    def __init__(self, log: Callable[[str], None] | None) -> None:
        self._log = log
        self._left_out: set[str] = set()
        self._refused: set[str] = set()
        self._series: list[Series] = []
        self._layouts: list[FamilyLayout] = []

    @property
    def refused(self) -> int:
        """How many families had a name that no metric can have."""
        return len(self._refused)

    def families(self, series: list[Series]) -> list[Metric]:
        """Return the families of these series by name."""
        if series != self._series or not all(layout.is_current for layout in self._layouts):
            self._arrange(series)
            self._series = series
        return [layout.family() for layout in self._layouts]

    def _arrange(self, series: list[Series]) -> None:
        names = PageNames()
        stored = families_of(series)
        layouts = (self._layout(name, stored[name], names) for name in sorted(stored))
        self._layouts = [layout for layout in layouts if layout is not None]

    def _layout(self, name: str, series: list[Series], names: PageNames) -> FamilyLayout | None:
        """Return the family's layout; ``None`` when no metric can have its name or when others have it."""
        try:
            layout = FamilyLayout(name, series)
        except ValueError as error:
            if len(self._refused) < _MOST_LEFT_OUT:
                self._refused.add(name)
            self._leave_out(name, str(error))
            return None
        other = names.take(name, layout.built.type)
        if not other:
            return layout
        whose = "promgun's own metric" if other in _OWN else "the application's metric"
        self._leave_out(name, f"{whose} {other!r} has a sample of the same name")
        return None

    def _leave_out(self, name: str, reason: str) -> None:
        if name not in self._left_out and len(self._left_out) < _MOST_LEFT_OUT:
            self._left_out.add(name)
            if self._log is not None:
                self._log(f"The application's metric {name!r} is not on the page: {reason}")
