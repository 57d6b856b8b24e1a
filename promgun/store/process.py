"""The store as one process sees it: its slot, its files, and who must be told when it forks."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from threading import RLock
from typing import Any

from promgun.store.board import Board, Cell, Role, monotonic_ns
from promgun.store.directory import StoreDirectory
from promgun.store.files import Owner, ValueFile
from promgun.store.pending import PendingSeries, Settled, StoreErrors, Waiting
from promgun.store.slots import Slot, claim, slot_name
from promgun.store.value_class_hook import publish
from promgun.store.values import Place, SlotValue, value_class

_RETRY_AFTER = 1.0


class ProcessStore:
    """Hands out float cells in the files of the slot that this process owns.

    Nothing here raises into a request or a boot: what cannot be stored is counted, lives in private memory, and moves
    into the files when they can be had (:meth:`retry`).
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
        self._values: weakref.WeakSet[SlotValue] = weakref.WeakSet()
        self._listeners: list[Callable[[], None]] = []
        self._waiting = PendingSeries()
        self._errors = StoreErrors()
        #: guards every change of the files; a signal handler that comes into one is told so by ``_inside``
        self.lock = RLock()
        self._inside = False
        self._tried = -_RETRY_AFTER
        self._private_board: Board | None = None
        self._claiming = False
        self._registered = False

    # ---- set-up

    def open(self, directory: StoreDirectory) -> None:
        """Begin to use a directory; values made before move in."""
        self.directory = directory
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory.path)
        if not self._registered:
            self._registered = True
            os.register_at_fork(after_in_child=self._after_fork_in_child, after_in_parent=self._after_fork_in_parent)
        if not self._waiting.empty:
            self.retry()

    def publish(self) -> None:
        """Make prometheus_client use our values, now or whenever it is imported."""
        publish(value_class(self))

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
            board = self.slot.board if self.slot is not None else self._private_board
            if board is not None:
                board.cells[Cell.ROLE] = role
        try:
            return self._claimed()
        except OSError as error:
            self.count_error(error)
            return None

    def _claimed(self) -> Slot | None:
        """Return the slot of this process, taking one if need be; ``None`` before a directory is opened, or while the
        interrupted code is taking one.
        """
        if self.slot is None and self.directory is not None:
            with self.lock:
                if self.slot is None and not self._claiming:
                    self._claiming = True
                    try:
                        self._begin(claim(self.directory.path, self.directory.owner))
                    finally:
                        self._claiming = False
        return self.slot

    def _begin(self, slot: Slot) -> None:
        slot.take_over(self.role)
        if self._private_board is not None:
            # Whoever looked the board up goes on with the same object.
            slot.put_board(self._private_board)
            self._private_board = None
        self.slot = slot

    @property
    def board(self) -> Board:
        """The scoreboard of this process: its slot's, or private memory while it has none."""
        slot = self.own_slot()
        return slot.board if slot is not None else self._unclaimed_board()

    def _unclaimed_board(self) -> Board:
        if self._private_board is None:
            board = Board(-1, Owner())
            board.occupy(self.role, monotonic_ns())
            self._private_board = board
        return self._private_board

    # ---- places

    def places(self, prefix: str, keys: Sequence[str]) -> tuple[Any, list[int]]:
        """Return the cells of a file and the index of each key in them, adding what is missing.

        ``prefix`` is the type as it stands in file names: ``counter``, ``histogram``, ``gauge_livesum`` … Raises
        ``OSError`` when there is no place now.
        """
        with self.lock:
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

    def allocate(self, prefix: str, keys: Callable[[], Sequence[str]], settled: Settled) -> tuple[Any, Sequence[int]]:
        """Return cells and the index of each key in them, as :meth:`places` does; while there is no place they are
        private memory, and ``settled`` is told of the place in the file later (:meth:`retry`). Never raises.

        Hold :attr:`lock` until what is returned is where ``settled`` would put it.
        """
        try:
            return self._places_now(prefix, keys)
        except OSError as error:
            self.count_error(error)
            waiting = Waiting(prefix, keys, settled)
            if error.errno != errno.EMSGSIZE:
                self._waiting.add(waiting)
            return waiting.cells, waiting.indexes

    def _places_now(self, prefix: str, keys: Callable[[], Sequence[str]]) -> tuple[Any, list[int]]:
        # The slot first: a key may name it.
        if self._claimed() is None:
            raise OSError(errno.EAGAIN, "no slot")
        return self.places(prefix, keys())

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that a file of this slot holds, those of earlier owners included; raises ``OSError`` as
        :meth:`places` does.
        """
        self.places(prefix, ())
        return list(self._files[prefix].positions)

    def _open_file(self, prefix: str) -> ValueFile:
        slot = self._claimed()
        if slot is None:
            raise OSError(errno.EAGAIN, "no slot")
        path = slot.directory / f"{prefix}_{slot_name(slot.number)}.db"
        file = self._files[prefix] = ValueFile(path, slot.owner)
        if file.damage:
            slot.board.cells[Cell.ERRORS_CORRUPT] += 1
        return file

    def adopt(self, value: SlotValue) -> None:
        """Take a new value in: give it a place, and remember it for the next fork."""
        with self.lock:
            self._values.add(value)
        self.settle(value)

    def settle(self, value: SlotValue) -> Place:
        """Give a value its place in this process."""
        with self.lock:
            place = value.place
            if place is None:
                cells, indexes = self.allocate(value.prefix, lambda: (value.key,), value.settled)
                # Unless a signal handler has used the value meanwhile: what it left in private memory moves later.
                value.settled(cells, indexes)
                place = cells, indexes[0]
        return place

    # ---- errors

    def count_error(self, error: OSError) -> None:
        """Count what could not be stored. It is said once an episode, by :meth:`retry`: here a lock may be held that
        the log wants too.
        """
        if error.errno == errno.EAGAIN:
            return
        board = self.slot.board if self.slot is not None else self._unclaimed_board()
        board.cells[self._errors.note(error, self.directory)] += 1

    def retry(self) -> None:
        """Move what waits in private memory into the files, if they can be had now; tries at most once a second."""
        now = self._clock()
        if now - self._tried < _RETRY_AFTER:
            return
        self._tried = now
        self._errors.log_once(self.warn)
        with contextlib.suppress(OSError):
            self._claimed()
        if self.slot is not None:
            self.slot.share_board()
        self._waiting.move_in(self._places_now, self.lock)
        if self.slot is not None and self.slot.board.shared and self._waiting.empty:
            self._errors.over()

    # ---- forks

    def _detach(self) -> None:
        self._files.clear()
        self._waiting.clear()
        for value in self._values:
            value.detach()
        for listener in self._listeners:
            listener()

    def _after_fork_in_child(self) -> None:
        self.lock = RLock()
        self._inside = self._claiming = False
        mine, self._pending = self._pending, None
        for inherited in [*self._claims, *filter(None, [self.slot])]:
            if inherited is not mine:
                inherited.release()
        for file in self._files.values():
            file.close()
        self._claims.clear()
        self._private_board = None
        self._errors.inherited()
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
            slot.free()


#: The store of this process. prometheus_client's value class is process-wide, so its store has to be as well.
STORE = ProcessStore()
