"""Loads what the application's metrics need when the application imports prometheus_client: their half dozen modules
would delay the first answer of a server without such metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promgun.store.value_class_hook import publish

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from promgun.store.app_metrics import AppMetrics, AppStore
    from promgun.store.pending import Placed, Places
    from promgun.store.placed_values import PlacedValues

    class ValueStore(AppStore, Protocol):
        """What :class:`LateAppMetrics` needs of the process's store."""

        def allocate(self, prefix: str, keys: Sequence[str], placed: Placed) -> Places:
            """Return cells and the index of each key in them; never raises."""


class LateAppMetrics:
    """The application's metrics of this process, made when they are first asked for; see :class:`AppMetrics`."""

    def __init__(self, store: ValueStore) -> None:
        self._store = store
        self._metrics: AppMetrics | None = None
        self._values: PlacedValues | None = None

    def publish(self) -> None:
        """Make prometheus_client use our values, now or when it is imported."""
        publish(self._value_class, self.watch)

    def _value_class(self) -> type[Any] | None:
        """Return the class of values; ``None`` in a process that can no longer read this package."""
        try:
            from promgun.store.values import value_class  # noqa: PLC0415 - the purpose of this module

            return value_class(self.values)
        except (ImportError, OSError):
            return None

    @property
    def metrics(self) -> AppMetrics:
        """The metrics."""
        if self._metrics is None:
            from promgun.store.app_metrics import AppMetrics  # noqa: PLC0415 - the purpose of this module

            with self._store.lock:
                # Another thread, or a signal handler, may have been faster.
                made = AppMetrics(self._store)
                self._metrics = self._metrics or made
        return self._metrics

    @property
    def values(self) -> PlacedValues:
        """Their values."""
        if self._values is None:
            from promgun.store.placed_values import PlacedValues  # noqa: PLC0415 - the purpose of this module

            with self._store.lock:
                made = PlacedValues(lambda: self._store.lock, self._store.allocate, self.metrics.define)
                self._values = self._values or made
        return self._values

    def watch(self, metric: Any) -> None:
        """Follow a metric that was just made, or whose info, state or function was just set."""
        if self._metrics is not None:
            self._metrics.watch(metric)

    def tick(self) -> None:
        """Read every followed metric, and store whatever is not stored yet."""
        if self._metrics is not None:
            self._metrics.tick()

    def asks_functions(self) -> bool:
        """Whether a gauge has a function, whose value may change at any moment."""
        return self._metrics is not None and self._metrics.asks_functions()

    def is_stored(self) -> bool:
        """Whether the definition of every family is stored."""
        return self._metrics is None or self._metrics.is_stored()

    def detach(self) -> None:
        """Forget all places of definitions: after a fork they belong to the parent, or the file was made anew."""
        if self._metrics is not None:
            self._metrics.detach()

    def detach_values(self) -> None:
        """Have every value forget its place: a fork made it somebody else's."""
        if self._values is not None:
            self._values.detach()


def load_ahead() -> None:
    """Import what :class:`LateAppMetrics` would, for this process and those that it forks."""
    import promgun.store.app_metrics  # noqa: PLC0415 - the purpose of this module
    import promgun.store.placed_values  # noqa: F401, PLC0415 - same
