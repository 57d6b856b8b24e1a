"""Values: float cells in the slot's files, and the class through which prometheus_client's metrics use them.

Updates take no lock: ``cells[index] += amount`` on a float64 memoryview, with the amount in a local, runs without a
point at which CPython's evaluation loop would switch threads, run a signal handler or start a collection (3.10 to 3.13
with the GIL; 8 threads lost none of 4,000,000 updates). So no update can be lost and nothing can deadlock. A
free-threaded build gives no such promise, so there :class:`LockedSlotValue` takes a lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from promgun.store.exclusive import has_gil
from promgun.store.format import series_key
from promgun.store.pending import Place


class Places(Protocol):
    """What values need of the process's store (``store.process.ProcessStore``)."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Guards every change of a place."""

    def define(self, kind: str, family: str, names: Sequence[str], values: Sequence[str], documentation: str) -> None:
        """Note how the family of a new value is defined."""

    def register(self, value: SlotValue) -> None:
        """Give a new value its place, and remember it for the next fork."""

    def place_value(self, value: SlotValue) -> Place:
        """Give a value its place in this process."""


class SlotValue:
    """A float in the file of this process's slot; prometheus_client's value interface (``values.MutexValue``, 0.26).

    It gets its place when first used in a process, and again after a fork; until then ``_place`` is ``None``.
    """

    _multiprocess = True
    _store: Places
    __slots__ = ("__weakref__", "_place", "key", "prefix")

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Any,
        labelvalues: Any,
        help_text: str,
        multiprocess_mode: str = "",
        **_: Any,
    ) -> None:
        self.prefix = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
        self.key = series_key(metric_name, name, dict(zip(labelnames, labelvalues, strict=False)), help_text)
        self._place: Place | None = None
        self._store.define(self.prefix, metric_name, labelnames, labelvalues, help_text)
        self._store.register(self)

    @property
    def place(self) -> Place | None:
        """The value's place; ``None`` when it has not been used in this process yet."""
        return self._place

    def placed(self, cells: Any, indexes: Sequence[int]) -> None:
        """Store the value in these cells from now on."""
        self._place = (cells, indexes[0])

    def detach(self) -> None:
        """Forget the place: after a fork it belongs to the parent."""
        self._place = None

    def inc(self, amount: float) -> None:
        """Add ``amount``."""
        place = self._place
        if place is None:
            place = self._store.place_value(self)
        cells, index = place
        cells[index] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set the value, and the time stamp that the mode ``mostrecent`` goes by."""
        cells, index = self._place or self._store.place_value(self)
        cells[index] = value
        cells[index + 1] = timestamp or 0.0

    def set_exemplar(self, exemplar: Any) -> None:
        """Do nothing: the format has no room for exemplars, as in prometheus_client (issue 648)."""

    def get(self) -> float:
        """Return the value of this process's slot."""
        cells, index = self._place or self._store.place_value(self)
        value: float = cells[index]
        return value

    def get_exemplar(self) -> None:
        """Return ``None``: see :meth:`set_exemplar`."""


class LockedSlotValue(SlotValue):
    """The same under the store's lock, for a free-threaded build; the lock is reentrant, because of signal handlers."""

    __slots__ = ()

    def inc(self, amount: float) -> None:
        """Add ``amount``."""
        with self._store.lock:
            super().inc(amount)

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set the value and its time stamp."""
        with self._store.lock:
            super().set(value, timestamp)


def value_class(store: Places) -> type[SlotValue]:
    """Return a value class for prometheus_client whose values live in ``store``."""
    parent: type[SlotValue] = SlotValue if has_gil() else LockedSlotValue
    return type("SlotValue", (parent,), {"_store": store, "by_promgun": True, "__slots__": ()})
