"""Stores the metrics that prometheus_client keeps out of its value files: infos, enums, gauges with a function.

The process that has such metrics reads them about once a second and stores them in its slot. It also stores how every
metric of the application is defined, so that after a reload the page follows the newest definition.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from promgun.store.board import Role
from promgun.store.definition_rows import MOST_ROWS, DefinitionRows, NoRoomError, RowStore, padded
from promgun.store.definitions import CHANGED, DEFINED, ENUM, INFO, OWNER, STATE, spell
from promgun.store.unshown import unshown_in_registry
from promgun.system.signal_handlers import raised_in_signal_handler

#: A gauge's function that takes this long is called less often, so that it uses a twentieth of the time.
_SLOW_SECONDS = 0.1
_SHARE = 20

# Private attributes of prometheus_client's metrics (0.20 to 0.26 ``metrics.py``).
_type_of, _name_of, _help_of = attrgetter("_type"), attrgetter("_name"), attrgetter("_documentation")
_value_of, _states_of, _labels_of = (
    attrgetter("_value"),
    attrgetter("_states"),
    attrgetter("_labelnames", "_labelvalues"),
)
#: ``Gauge.set_function`` replaces the gauge's own ``_child_samples`` by one that calls the function.
_samples_of, _is_stamped = attrgetter("_child_samples"), attrgetter("_is_most_recent")

#: The types whose content is stored, because no value file holds it.
_WITH_CONTENT = frozenset({INFO, ENUM})
_LAST_BUCKET = "+Inf"


class AppStore(RowStore, Protocol):
    """What :class:`AppMetrics` needs of the process's store."""

    role: Role
    worker_quits: bool


class _Defined:
    """How this process defines one family.

    Another thread may read it while it changes: ``written`` is set to false last, and read first.
    """

    __slots__ = ("bounds", "coming", "defined", "help", "kind", "names", "written")

    def __init__(self, kind: str, names: tuple[str, ...], documentation: str) -> None:
        self.kind = kind
        self.names: tuple[str, ...] | None = names
        self.help = documentation
        #: the buckets of whole histograms, as they stand in ``le``
        self.bounds: frozenset[str] = frozenset()
        #: by thread, the buckets so far of a histogram that is being made
        self.coming: dict[int, set[str]] = {}
        self.defined = time.monotonic()
        self.written = False

    def bucket(self, bound: str) -> frozenset[str]:
        """Note a bucket of a histogram; return all buckets once it was the last: prometheus_client makes them in
        order, ``+Inf`` last (0.20 to 0.26 ``metrics.py``).
        """
        thread = threading.get_ident()
        if bound != _LAST_BUCKET:
            self.coming.setdefault(thread, set()).add(bound)
            return self.bounds
        return self.bounds.union(self.coming.pop(thread, ()), (bound,))

    def change(self, names: tuple[str, ...] | None, bounds: frozenset[str], documentation: str) -> None:
        """Take over another definition."""
        self.names, self.bounds, self.help = names, bounds, documentation
        self.defined = time.monotonic()
        self.written = False


class AppMetrics:
    """The application's metrics of this process. Nothing here raises; a metric that cannot be shown is logged once."""

    def __init__(self, store: AppStore) -> None:
        self._store = store
        self._families: dict[str, _Defined] = {}
        self._metrics: WeakSet[Any] = WeakSet()
        #: by metric: its last content, when the metric was made, and when that content was set
        self._contents: WeakKeyDictionary[Any, tuple[object, float, float]] = WeakKeyDictionary()
        #: by metric: the text of its row
        self._texts: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._call_at: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._rows = DefinitionRows(store)
        self._warned: set[str] = set()

    # ---- called by prometheus_client's classes

    def define(self, kind: str, family: str, labels: Sequence[str], values: Sequence[str], documentation: str) -> None:
        """Note how a family is defined; called for each new value, with ``kind`` as in file names."""
        own = tuple(labels)
        bound = values[-1] if kind == "histogram" and own[-1:] == ("le",) else None
        if bound is not None:
            own = own[:-1]
        known = self._families.get(family)
        if known is None:
            known = self._families.setdefault(family, _Defined(kind, own, documentation))
        elif known.kind != kind:
            known = self._families[family] = _Defined(kind, own, documentation)
        bounds = known.bounds if bound is None else known.bucket(bound)
        # Two registries of one process may each have a metric of this name, with different labels.
        names = own if known.names == own else None
        if names != known.names or bounds != known.bounds:
            known.change(names, bounds, documentation)

    def watch(self, metric: Any) -> None:
        """Follow a metric that was just made, or whose info, state or function was just set."""
        try:
            kind = _type_of(metric)
            with self._store.lock:
                # First its content: whoever finds it among the metrics reads that.
                if kind in _WITH_CONTENT:
                    self._note(metric)
                if kind in _WITH_CONTENT or "_child_samples" in vars(metric):
                    self._metrics.add(metric)
            if self._store.role is Role.WORKER:
                self._store_change(metric)
        except Exception as error:  # noqa: BLE001 - no error of ours may reach the application
            self._failed(error)

    def _store_change(self, metric: Any) -> None:
        """Store a change at once: the next heartbeat of an idle worker may be half a timeout away."""
        if _type_of(metric) in _WITH_CONTENT:
            self._write_content(metric)
        else:
            family = _name_of(metric)
            known = self._families.get(family)
            if known is not None:
                self._write_family(family, known)

    # ---- once a second

    def tick(self) -> None:
        """Read every followed metric, and store whatever is not stored yet."""
        if self._store.role is not Role.WORKER:
            return
        with self._store.lock:
            metrics = list(self._metrics)
        for family, known in list(self._families.items()):
            self._guard(self._write_family, family, known)
        for metric in metrics:
            self._guard(self._write_content if _type_of(metric) in _WITH_CONTENT else self._call_function, metric)
        for name, reason in unshown_in_registry():
            self._warn(name, reason)

    def asks_functions(self) -> bool:
        """Whether a gauge has a function, whose value may change at any moment."""
        if not self._metrics:
            return False
        with self._store.lock:
            return any(_type_of(metric) not in _WITH_CONTENT for metric in self._metrics)

    def is_stored(self) -> bool:
        """Whether the definition of every family is stored."""
        return all(known.written for known in list(self._families.values()))

    def _guard(self, store: Callable[..., object], *args: object) -> None:
        """Store one metric; an error leaves the others alone."""
        try:
            store(*args)
        except Exception as error:  # noqa: BLE001 - no error of ours may reach a request or a worker's loop
            self._failed(error)

    def detach(self) -> None:
        """Forget all places in files: after a fork they belong to the parent, or the file was made anew."""
        self._rows.forget()
        for known in list(self._families.values()):
            known.written = False

    def _note(self, metric: Any) -> None:
        # Info keeps a new dict for each call of info() (prometheus_client 0.26), Enum a number.
        value = _value_of(metric)
        before = self._contents.get(metric)
        now = time.monotonic()
        if before is None:
            self._contents[metric] = value, now, now
        elif before[0] != value:
            self._contents[metric] = value, before[1], now

    def _write_family(self, family: str, known: _Defined) -> None:
        if known.written or (known.kind == "histogram" and _LAST_BUCKET not in known.bounds):
            return
        # Whatever changes from here on is written next time, with a later time.
        known.written = True
        defined = known.defined
        bounds = [bound for bound in sorted(map(float, known.bounds)) if bound < math.inf]
        text = spell(known.kind, family, known.help, known.names, bounds)
        if not self._write(family, text, defined, defined):
            known.written = False

    def _write_content(self, metric: Any) -> None:
        if _type_of(metric) == INFO:
            value, defined, changed = self._contents[metric]
            detail: Any = {str(name): str(text) for name, text in value.items()}  # type: ignore[attr-defined] # a dict
            state = 0.0
        else:
            value, defined, changed = self._contents[metric]
            # It gets its states after it was made (prometheus_client 0.26).
            detail = [str(name) for name in getattr(metric, "_states", ())]
            state = float(value)  # type: ignore[arg-type] # a number
        name = _name_of(metric)
        text = spell(_type_of(metric), name, _help_of(metric), _labels(metric), detail) if detail else ""
        if text:
            text = self._texts[metric] = padded(text)
        if text != "":
            self._write(name, text, defined, changed, state)

    def _write(self, name: str, text: str | None, defined: float, changed: float, state: float = 0.0) -> bool:
        """Write a row; return whether nothing is left to do for it."""
        if text is None:
            self._warn(name, f"The metric {name!r} cannot be shown: its help and its labels are too long")
            return True
        with self._store.lock:
            try:
                place = self._rows.place(text, set(self._texts.values()))
            except NoRoomError:
                self._warn(
                    "room",
                    f"The definition of {name!r} cannot be shown: the worker has {MOST_ROWS} definitions of the "
                    "application's metrics, or too many values of Info and Enum metrics, the most that it keeps",
                )
                return False
            if place is None:
                return False
            cells, indexes = place
            cells[indexes[STATE]] = state
            cells[indexes[CHANGED]] = changed
            cells[indexes[DEFINED]] = defined
            cells[indexes[OWNER]] = os.getpid()
        return True

    def _call_function(self, gauge: Any) -> None:
        now = time.monotonic()
        if now < self._call_at.get(gauge, now):
            return
        try:
            value = next(iter(_samples_of(gauge)())).value
        except BaseException as error:
            # Only the worker's main loop calls this, and nothing else than a signal ends that from outside: whatever
            # else arrives here, SystemExit or gevent's Timeout and GreenletExit too, the function raised.
            if self._store.worker_quits or raised_in_signal_handler(error):
                raise
            self._warn(
                _name_of(gauge),
                f"The function of the gauge {_name_of(gauge)!r} raised {type(error).__name__}: {error}",
            )
            return
        _value_of(gauge).set(value, time.time() if _is_stamped(gauge) else None)
        taken = time.monotonic() - now
        if taken > _SLOW_SECONDS:
            self._call_at[gauge] = now + taken * _SHARE
            self._warn(
                _name_of(gauge),
                f"The function of the gauge {_name_of(gauge)!r} took {taken:.1f} s: it is called less often",
            )

    def _failed(self, error: Exception) -> None:
        self._warn("error", f"The application's metrics cannot be stored: {type(error).__name__}: {error}")

    def _warn(self, about: str, text: str) -> None:
        if about not in self._warned and self._store.warn is not None:
            self._warned.add(about)
            self._store.warn(text)


def _labels(metric: Any) -> dict[str, str]:
    return dict(zip(*_labels_of(metric), strict=False))
