"""The store as one process sees it: its slot, its files, and who must be told when it forks."""

from __future__ import annotations

import errno
import importlib.abc
import importlib.machinery
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from threading import RLock
from types import ModuleType
from typing import Any

from promgun.store.board import Board, Cell, Role
from promgun.store.directory import StoreDirectory
from promgun.store.files import Owner, ValueFile
from promgun.store.slots import Slot, claim, slot_name
from promgun.store.values import Place, SlotValue, private_place, value_class

_RETRY_AFTER = 1.0
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class ProcessStore:
    """Hands out float cells in the files of the slot that this process owns.

    Nothing here raises into a request or a boot: what cannot be stored is counted, lives in private memory, and moves
    into the files
    when they can be had (:meth:`retry`).
    """

    def __init__(self, warn: Callable[[str], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.directory: StoreDirectory | None = None
        self.role = Role.OTHER
        self.slot: Slot | None = None
        self.warn = warn
        self._clock = clock
        self._pending: Slot | None = None
        self._claims: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._files: dict[str, ValueFile] = {}
        self._values: list[weakref.ref[SlotValue]] = []
        self._listeners: list[Callable[[], None]] = []
        self._homeless: list[SlotValue] = []
        self._lock = RLock()
        self._inside = False
        self._tried = 0.0
        self._warned = False
        self._private_board: Board | None = None
        self._registered = False

    # ---- set-up

    def open(self, directory: StoreDirectory) -> None:
        """Begin to use a directory; values made before move in when next used."""
        self.directory = directory
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory.path)
        if not self._registered:
            self._registered = True
            os.register_at_fork(after_in_child=self._after_fork_in_child, after_in_parent=self._after_fork_in_parent)
        self._detach()

    def publish(self) -> None:
        """Make prometheus_client use our values, now or whenever it is imported."""
        values = value_class(self)
        loaded = sys.modules.get("prometheus_client.values")
        if loaded is not None:
            loaded.ValueClass = values  # type: ignore[attr-defined] # the module's own switch
        elif not any(isinstance(finder, _ValuesFinder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _ValuesFinder(values))

    def on_detach(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after a fork, or when places handed out by :meth:`places` must be asked for anew."""
        self._listeners.append(listener)

    # ---- slots

    def reserve(self) -> Slot | None:
        """Take a slot for the child that is forked next: it inherits the claim, siblings do not."""
        if self.directory is None:
            return None
        try:
            slot = claim(self.directory.path, self.directory.owner)
        except OSError:
            # The child will try for itself, and count what it cannot store.
            return None
        self._claims.add(slot)
        self._pending = slot
        return slot

    def own_slot(self, role: Role | None = None) -> Slot | None:
        """Return the slot of this process, taking one if need be; ``None`` while that is impossible."""
        if role is not None:
            self.role = role
        if self.slot is None and self.directory is not None:
            try:
                self.slot = claim(self.directory.path, self.directory.owner)
            except OSError as error:
                self.count_error(error)
                return None
            self._begin(self.slot)
        return self.slot

    def _begin(self, slot: Slot) -> None:
        slot.take_over(self.role)
        private = self._private_board
        if private is not None:
            for cell in (Cell.ERRORS_NO_SPACE, Cell.ERRORS_CORRUPT, Cell.ERRORS_PERMISSION):
                slot.board.cells[cell] += private.cells[cell]
            self._private_board = None

    @property
    def board(self) -> Board:
        """The scoreboard of this process: its slot's, or private memory while it has none."""
        slot = self.own_slot()
        if slot is not None:
            return slot.board
        if self._private_board is None:
            self._private_board = Board(-1, Owner())
        return self._private_board

    # ---- places

    def places(self, prefix: str, keys: Sequence[str]) -> tuple[Any, list[int]]:
        """Return the cells of a file and the index of each key in them, adding what is missing.

        ``prefix`` is the type as it stands in file names: ``counter``, ``histogram``, ``gauge_livesum`` … Raises
        ``OSError`` when there is
        no place; the caller then counts in private memory and calls :meth:`retry` now and then.
        """
        with self._lock:
            if self._inside:
                # A signal handler or a GC callback came in while this thread was changing a file: not now.
                raise OSError(errno.EAGAIN, "the store is being changed by the interrupted code")
            self._inside = True
            try:
                file = self._files.get(prefix) or self._open_file(prefix)
                indexes = file.indexes(keys)
                return file.cells, indexes
            finally:
                self._inside = False

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that a file of this slot holds, those of earlier owners included; empty when there is no
        file.
        """
        try:
            self.places(prefix, ())
        except OSError:
            return []
        return list(self._files[prefix].positions)

    def _open_file(self, prefix: str) -> ValueFile:
        slot = self.own_slot()
        if slot is None:
            raise OSError(errno.EAGAIN, "no slot")
        path = slot.directory / f"{prefix}_{slot_name(slot.number)}.db"
        file = self._files[prefix] = ValueFile(path, slot.owner)
        if file.damage:
            slot.board.cells[Cell.ERRORS_CORRUPT] += 1
        return file

    def adopt(self, value: SlotValue) -> None:
        """Take a new value in: give it a place, and remember it for the next fork."""
        with self._lock:
            self._values.append(weakref.ref(value, self._values.remove))
        self.settle(value)

    def settle(self, value: SlotValue) -> Place:
        """Give a value its place in this process; private memory while the files have none."""
        try:
            cells, (index,) = self.places(value.prefix, (value.key,))
        except OSError as error:
            self.count_error(error)
            place = private_place()
            value.move(place)
            self._homeless.append(value)
            return place
        value.move((cells, index))
        return cells, index

    # ---- trouble

    def count_error(self, error: OSError) -> None:
        """Count what could not be stored, and say so once an episode."""
        if error.errno == errno.EAGAIN:
            return
        cell = Cell.ERRORS_NO_SPACE if error.errno in _NO_SPACE else Cell.ERRORS_PERMISSION
        board = self.slot.board if self.slot is not None else self._private_board
        if board is None:
            board = self._private_board = Board(-1, Owner())
        board.cells[cell] += 1
        if self.warn is not None and not self._warned:
            self._warned = True
            where = error.filename or (self.directory and self.directory.path)
            self.warn(
                f"Metrics cannot be stored ({error.strerror}: {where}); "
                "requests are served, values wait in memory until there is space"
            )

    def retry(self) -> None:
        """Move what waits in private memory into the files, if they can be had now; tries at most once a second."""
        now = self._clock()
        if now - self._tried < _RETRY_AFTER:
            return
        self._tried = now
        if self.slot is not None and not self.slot.board.shared:
            self.slot.share_board()
        if not self._homeless:
            return
        waiting, self._homeless = self._homeless, []
        for position, value in enumerate(waiting):
            try:
                cells, (index,) = self.places(value.prefix, (value.key,))
            except OSError:
                self._homeless.extend(waiting[position:])
                return
            value.move((cells, index))
        self._warned = False

    # ---- forks

    def _detach(self) -> None:
        self._files.clear()
        self._homeless.clear()
        for reference in list(self._values):
            value = reference()
            if value is not None:
                value.detach()
        for listener in self._listeners:
            listener()

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()
        self._inside = False
        mine, self._pending = self._pending, None
        for inherited in [*self._claims, *filter(None, [self.slot])]:
            if inherited is not mine:
                inherited.release()
        for file in self._files.values():
            file.close()
        self._claims.clear()
        self._private_board = None
        self._warned = False
        self.slot = mine
        self.role = Role.WORKER if mine is not None else Role.OTHER
        if mine is not None:
            mine.take_over(self.role)
        self._detach()

    def _after_fork_in_parent(self) -> None:
        self._pending = None

    def forget(self, slots: Iterable[Slot]) -> None:
        """Release claims made for children that are gone."""
        for slot in slots:
            self._claims.discard(slot)
            slot.release()


class _ValuesFinder(importlib.abc.MetaPathFinder):
    """Puts our value class into ``prometheus_client.values`` the moment that module is first imported.

    The client chooses its class once, at import (prometheus_client 0.26 ``values.py``); importing it for every worker
    that never
    uses it would cost start-up time and memory.
    """

    def __init__(self, values: type[SlotValue]) -> None:
        self._values = values
        self._busy = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's own spec with a loader that adds one step."""
        if fullname != "prometheus_client.values":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ValuesLoader(spec.loader, self._values)
        return spec


class _ValuesLoader(importlib.abc.Loader):
    """The module's own loader, then our class in place."""

    def __init__(self, loader: Any, values: type[SlotValue]) -> None:
        self._loader = loader
        self._values = values

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Leave it to the module's own loader."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then set the class that its metrics will be made of."""
        self._loader.exec_module(module)
        module.ValueClass = self._values  # type: ignore[attr-defined] # the module's own switch


#: The store of this process. prometheus_client's value class is process-wide, so its store has to be as well.
STORE = ProcessStore()
