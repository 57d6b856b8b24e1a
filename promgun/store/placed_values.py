"""The values of prometheus_client's metrics in this process: each has a place, and asks for another after a fork."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from promgun.store.pending import Place, Placed, Places
from promgun.store.values import SlotValue

Define = Callable[[str, str, Sequence[str], Sequence[str], str], None]


class PlacedValues:
    """Gives values their places by ``allocate``, under ``lock`` (see ``store.values.Places``).

    ``define`` is called with the definition of each new value's family.
    """

    def __init__(
        self,
        lock: Callable[[], AbstractContextManager[Any]],
        allocate: Callable[[str, Sequence[str], Placed], Places],
        define: Define = lambda *_: None,
    ) -> None:
        self.define = define
        self._lock = lock
        self._allocate = allocate
        self._values: weakref.WeakSet[SlotValue] = weakref.WeakSet()

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Guards every change of a place."""
        return self._lock()

    def register(self, value: SlotValue) -> None:
        """Give a new value a place, and remember it for the next fork."""
        with self._lock():
            self._values.add(value)
        self.place_value(value)

    def place_value(self, value: SlotValue) -> Place:
        """Give a value its place in this process."""
        with self._lock():
            place = value.place
            if place is None:
                cells, indexes = self._allocate(value.prefix, (value.key,), value.placed)
                # Changes nothing if a signal handler has placed the value meanwhile; updates in private memory move
                # later.
                value.placed(cells, indexes)
                place = cells, indexes[0]
        return place

    def detach(self) -> None:
        """Have every value forget its place: a fork made it somebody else's."""
        for value in self._values:
            value.detach()
