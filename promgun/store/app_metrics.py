"""Stores the metrics that prometheus_client keeps out of its value files: infos, enums, gauges with a function.

The process that has such metrics reads them about once a second and stores them in its slot. It also stores how every
metric of the application is defined, so that after a reload the page follows the newest definition.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from promgun.store.board import Role
from promgun.store.definitions import CHANGED, DEFINED, ENUM, INFO, OWNER, SCHEMA, STATE, spell
from promgun.store.pending import Placed, Places
from promgun.store.row_format import RowSchema
from promgun.store.unshown import unshown_in_registry

#: The most rows of definitions in a slot, rows of earlier owners included, and the most bytes of their texts.
MOST_ROWS = 1000
MOST_BYTES = 1 << 20
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

_ASKED = frozenset({INFO, ENUM})


class RowStore(Protocol):
    """What :class:`AppMetrics` needs of the process's store."""

    role: Role
    warn: Callable[[str], None] | None

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Guards every change of a place."""

    def allocate_row(self, schema: RowSchema, values: tuple[str, ...], placed: Placed) -> Places:
        """Return the cells of a row, and their indexes."""

    def row_values(self, schema: RowSchema) -> list[tuple[str, ...]]:
        """Return the rows that are there; raises ``OSError`` while there is no slot."""


class _Defined:
    """How this process defines one family."""

    __slots__ = ("bounds", "defined", "help", "kind", "names", "written")

    def __init__(self, kind: str, names: tuple[str, ...], documentation: str) -> None:
        self.kind = kind
        self.names: tuple[str, ...] | None = names
        self.help = documentation
        self.bounds: set[str] = set()
        self.written = False
        self.defined = time.monotonic()


class AppMetrics:
    """The application's metrics of this process. Nothing here raises; a metric that cannot be shown is logged once."""

    def __init__(self, store: RowStore) -> None:
        self._store = store
        self._families: dict[str, _Defined] = {}
        self._metrics: WeakSet[Any] = WeakSet()
        #: by metric: its last content, when the metric was made, and when that content was set
        self._said: WeakKeyDictionary[Any, tuple[object, float, float]] = WeakKeyDictionary()
        self._ask_at: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._rows: dict[str, Places] = {}
        self._room: list[int] | None = None
        self._warned: set[str] = set()

    # ---- told by prometheus_client's classes

    def define(self, kind: str, family: str, names: Sequence[str], values: Sequence[str], documentation: str) -> None:
        """Note how a family is defined; called for each new value, with ``kind`` as in file names."""
        own = tuple(names)
        bound = values[-1] if kind == "histogram" and own[-1:] == ("le",) else None
        if bound is not None:
            own = own[:-1]
        known = self._families.get(family)
        if (
            known is not None
            and known.kind == kind
            and known.names in (own, None)
            and (bound in known.bounds or not bound)
        ):
            return
        if known is None or known.kind != kind:
            known = self._families[family] = _Defined(kind, own, documentation)
        elif known.names != own:
            # Two registries of one process may each have a metric of this name, with different labels.
            known.names = None
        known.help, known.written = documentation, False
        if bound is not None:
            known.bounds.add(bound)

    def watch(self, metric: Any) -> None:
        """Follow a metric that was just made, or whose info, state or function was just set."""
        try:
            kind = _type_of(metric)
            if kind in _ASKED or "_child_samples" in vars(metric):
                self._metrics.add(metric)
            if kind in _ASKED:
                self._note(metric)
            # An Enum gets its states after it was made (prometheus_client 0.26).
            made = kind != ENUM or hasattr(metric, "_states")
            if self._store.role is Role.WORKER and made:
                self._store_change(metric)
        except Exception as error:  # noqa: BLE001 - no error of ours may reach the application
            self._failed(error)

    def _store_change(self, metric: Any) -> None:
        """Store a change at once: the next heartbeat of an idle worker may be half a timeout away."""
        if _type_of(metric) in _ASKED:
            self._write_told(metric)
        else:
            family = _name_of(metric)
            known = self._families.get(family)
            if known is not None and not known.written:
                self._write_family(family, known)

    # ---- once a second

    def tick(self) -> None:
        """Read every followed metric, and store whatever is not stored yet."""
        try:
            if self._store.role is Role.WORKER:
                self._store_all()
        except Exception as error:  # noqa: BLE001 - no error of ours may reach a request or a worker's loop
            self._failed(error)

    def detach(self) -> None:
        """Forget all places in files: after a fork they belong to the parent, or the file was made anew."""
        self._rows.clear()
        self._room = None
        for known in list(self._families.values()):
            known.written = False

    def _note(self, metric: Any) -> None:
        # Info keeps a new dict for each call of info() (prometheus_client 0.26), Enum a number.
        value = _value_of(metric)
        before = self._said.get(metric)
        now = time.monotonic()
        if before is None:
            self._said[metric] = value, now, now
        elif before[0] != value:
            self._said[metric] = value, before[1], now

    def _store_all(self) -> None:
        for family, known in list(self._families.items()):
            if not known.written:
                self._write_family(family, known)
        for metric in list(self._metrics):
            if _type_of(metric) in _ASKED:
                self._write_told(metric)
            else:
                self._ask(metric)
        for name, reason in unshown_in_registry():
            self._warn(name, reason)

    def _write_family(self, family: str, known: _Defined) -> None:
        bounds = [bound for bound in sorted(map(float, list(known.bounds))) if bound < math.inf]
        text = spell(known.kind, family, known.help, known.names, bounds)
        known.written = self._write(family, text, known.defined, known.defined)

    def _write_told(self, metric: Any) -> None:
        if _type_of(metric) == INFO:
            self._write_info(metric)
        else:
            self._write_enum(metric)

    def _write_info(self, metric: Any) -> None:
        value, defined, changed = self._said[metric]
        told = {str(name): str(text) for name, text in value.items()}  # type: ignore[attr-defined] # a dict
        if told:
            text = spell(INFO, _name_of(metric), _help_of(metric), _labels(metric), told)
            self._write(_name_of(metric), text, defined, changed)

    def _write_enum(self, metric: Any) -> None:
        state, defined, changed = self._said[metric]
        states = [str(name) for name in _states_of(metric)]
        text = spell(ENUM, _name_of(metric), _help_of(metric), _labels(metric), states)
        self._write(_name_of(metric), text, defined, changed, float(state))  # type: ignore[arg-type] # a number

    def _write(self, name: str, text: str | None, defined: float, changed: float, state: float = 0.0) -> bool:
        """Write a row; return whether nothing is left to do for it."""
        if text is None:
            self._warn(name, f"The metric {name!r} cannot be shown: its help and its labels are too long")
            return True
        place = self._rows.get(text)
        if place is None:
            place = self._place(name, text)
            if place is None:
                return False
        cells, indexes = place
        cells[indexes[STATE]] = state
        cells[indexes[CHANGED]] = changed
        cells[indexes[DEFINED]] = defined
        cells[indexes[OWNER]] = os.getpid()
        return True

    def _place(self, name: str, text: str) -> Places | None:
        if self._room is None:
            try:
                rows = self._store.row_values(SCHEMA)
            except OSError:
                return None
            self._room = [MOST_ROWS - len(rows), MOST_BYTES - sum(len(values[0]) for values in rows)]
            self._present = {values[0] for values in rows}
        if text not in self._present:
            if self._room[0] < 1 or self._room[1] < len(text):
                self._warn(
                    "room",
                    f"The value of {name!r} cannot be shown: the worker has had {MOST_ROWS} different values of Info "
                    f"and Enum metrics, or {MOST_BYTES >> 20} MiB of them, the most that it keeps",
                )
                return None
            self._present.add(text)
            self._room[0] -= 1
            self._room[1] -= len(text)

        def placed(cells: Any, indexes: Sequence[int]) -> None:
            self._rows[text] = cells, indexes

        with self._store.lock:
            place = self._rows[text] = self._store.allocate_row(SCHEMA, (text,), placed)
        return place

    def _ask(self, gauge: Any) -> None:
        now = time.monotonic()
        if now < self._ask_at.get(gauge, now):
            return
        try:
            value = next(iter(_samples_of(gauge)())).value
        except Exception as error:  # noqa: BLE001 - the application's own code
            self._warn(
                _name_of(gauge),
                f"The function of the gauge {_name_of(gauge)!r} raised {type(error).__name__}: {error}",
            )
            return
        _value_of(gauge).set(value, time.time() if _is_stamped(gauge) else None)
        taken = time.monotonic() - now
        if taken > _SLOW_SECONDS:
            self._ask_at[gauge] = now + taken * _SHARE
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
