"""The store as one process sees it: its slot, its values, and the listeners that are called after a fork."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from promgun.store.board import Board, Cell, Role, count, monotonic_ns
from promgun.store.client_links import remove_links
from promgun.store.exclusive import ExclusiveChange
from promgun.store.file_places import FilePlaces
from promgun.store.home import MasterHome, SlotHome
from promgun.store.late_app_metrics import LateAppMetrics
from promgun.store.late_upkeep import LateUpkeep
from promgun.store.pending import PendingSeries, PendingValues, Placed, Places, StoreErrors
from promgun.store.row_format import RowSchema
from promgun.store.run_directory import MULTIPROC_VARIABLE, RunDirectory
from promgun.store.slot_claims import SlotClaims
from promgun.store.slot_lock import SlotLock
from promgun.store.worker_table import WorkerTable

if TYPE_CHECKING:
    from promgun.store.home import ProcessHome

_RETRY_AFTER = 1.0
_ROWS = "rows"
_Values = tuple[str, ...]


class ProcessStore:
    """Hands out float cells in the files of this process: a master's own files, or those of its slot.

    Nothing here raises into a request or a boot: values that cannot be stored are counted, kept in private memory, and
    moved into the files when that becomes possible (:meth:`retry`). Nothing below the workers' directories is opened
    before this process runs as the workers' user.
    """

    def __init__(self, warn: Callable[[str], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.directory: RunDirectory | None = None
        self.role = Role.OTHER
        self.warn = warn
        #: the scoreboard of this process, in private memory at first; the same object until the next fork
        self.board = Board()
        self.change = ExclusiveChange()
        self._clock = clock
        self._home: ProcessHome | None = None
        self._upkeep = LateUpkeep()
        self._claims = SlotClaims()
        self.withhold_reservation = self._claims.withheld
        self.in_files = FilePlaces(self)
        self._files = self.in_files.files
        self.app = LateAppMetrics(self)
        #: set by a worker that Gunicorn's handler of SIGQUIT or SIGABRT is about to end: on gevent and eventlet that
        #: happens in a greenlet, whose SystemExit is thrown into the main loop, wherever that waits
        self.worker_quits = False
        self._listeners: list[Callable[[], None]] = [self.app.detach]
        self._pending = PendingSeries()
        self._errors = StoreErrors()
        self._tried = -_RETRY_AFTER
        self._unwritten = False
        self._claiming = False
        self._registered = False

    # ---- set-up

    def open(self, directory: RunDirectory) -> None:
        """Begin to use a run's directory, as a master; values made before move into its files."""
        self.directory = directory
        self.role = Role.MASTER
        os.environ[MULTIPROC_VARIABLE] = str(directory.multiproc)
        if not self._registered:
            self._registered = True
            os.register_at_fork(
                before=self.flush,
                after_in_child=self._after_fork_in_child,
                after_in_parent=self._claims.after_fork_in_parent,
            )
        if not self._pending.empty:
            self.retry()

    def close(self) -> None:
        """Leave the directory, as a master, whose workers have ended or are about to."""
        if self.directory is not None:
            self.directory.close(self._claims.numbers, remove_links)

    @property
    def lock(self) -> Any:
        """Guards every change of a place."""
        return self.change.lock

    def on_detach(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after a fork, when places handed out before are no longer valid."""
        self._listeners.append(listener)

    # ---- slots

    @property
    def number(self) -> int | None:
        """The number of this process among masters or workers, ``None`` while it has none."""
        return self._claims.number if self._home is None else self._home.number

    def reserve(self) -> SlotLock | None:
        """Take a slot for the child that is forked next; other children do not inherit the claim."""
        if self.directory is None:
            return None
        return self._claims.reserve(self.directory, self.worker_table)

    @property
    def worker_table(self) -> WorkerTable:
        """What this master knows of its workers; only in memory while it has no file."""
        return self._home.table if isinstance(self._home, MasterHome) else WorkerTable()

    def own_slot(self, role: Role | None = None) -> int | None:
        """Return the number of this process, taking a slot if it has none; ``None`` while that is impossible."""
        if role is not None:
            self.role = role
            self.board.cells[Cell.ROLE] = role
        try:
            self.find_home()
        except OSError as error:
            self.count_error(error)
        return self.number

    def find_home(self) -> ProcessHome:
        """Return where this process stores, opening it if need be; raises ``OSError`` while that fails."""
        home = self._home
        if home is None:
            directory = self.directory
            if directory is None:
                raise OSError(errno.EAGAIN, "no directory yet")
            with self.lock:
                if self._home is None and not self._claiming:
                    self._claiming = True
                    try:
                        self._home = self._make_home(directory)
                    finally:
                        self._claiming = False
                home = self._home
        if home is None:
            raise OSError(errno.EAGAIN, "the interrupted code is taking a slot")
        return home

    def _make_home(self, directory: RunDirectory) -> ProcessHome:
        if self.role is Role.MASTER:
            home: ProcessHome = MasterHome(directory, self.board)
        else:
            lock = self._claims.own(directory)
            if not directory.is_open_to_me:
                raise OSError(errno.EAGAIN, "not the workers' user yet")
            home = SlotHome(directory, lock, self.board)
            self._upkeep.begin(directory, home)
        self.board.occupy(self.role, monotonic_ns())
        count(self.board.cells, Cell.ERRORS_CORRUPT, home.rows.damaged)
        return home

    # ---- places

    def allocate_row(self, schema: RowSchema, values: tuple[str, ...], placed: Placed) -> Places:
        """Return cells, and the indexes of a row's numbers in them. Never raises.

        Without a place in a file the cells are private memory, and ``placed`` is called with the later place
        (:meth:`retry`). Hold :attr:`lock` until the returned place is stored where ``placed`` would store it.
        """
        try:
            return self.in_files.row(schema, values)
        except OSError as error:
            find = partial(self.in_files.row, schema, values)
            return self._wait(PendingValues(_ROWS, find, placed, schema.cells), error)

    def row_values(self, schema: RowSchema) -> list[tuple[str, ...]]:
        """Return the label values of rows in this slot, see ``FilePlaces``; raises ``OSError`` while there is none."""
        return self.in_files.row_values(schema)

    def place_row(self, schema: RowSchema, values: _Values, instead_of: _Values | None = None) -> Places:
        """Return the place of a row in the slot's file; raises ``OSError``. See ``FilePlaces.row``."""
        return self.in_files.row(schema, values, instead_of)

    def allocate(self, prefix: str, keys: Sequence[str], placed: Placed) -> Places:
        """Return cells and the index of each key in a file of prometheus_client's format; see :meth:`allocate_row`.

        ``prefix`` is the type as it stands in file names: ``counter``, ``histogram``, ``gauge_livesum`` …
        """
        find = partial(self.in_files.keys, prefix, keys)
        try:
            return find()
        except OSError as error:
            values = PendingValues(prefix, find, placed, len(keys), stamped=True, replaces=prefix.startswith("gauge"))
            return self._wait(values, error)

    def _wait(self, values: PendingValues, error: OSError) -> Places:
        self.count_error(error)
        if error.errno != errno.EMSGSIZE:
            self._pending.add(values)
        return values.cells, values.indexes

    # ---- errors, what waits

    @property
    def waits(self) -> bool:
        """Whether something has no place in a file yet, or could not be written out."""
        return self._home is None or self._unwritten or not self._pending.empty

    def count_error(self, error: OSError) -> None:
        """Count a value that could not be stored; :meth:`retry` logs it: the caller may hold the log's lock."""
        if error.errno != errno.EAGAIN:
            count(self.board.cells, self._errors.note(error, "" if self.directory is None else self.directory.path))

    def retry(self) -> None:
        """Move waiting values from private memory into the files where possible; tries at most once a second."""
        if self._clock() - self._tried >= _RETRY_AFTER:
            self._tried = self._clock()
            self.retry_now()
            self._tend()

    def retry_now(self) -> None:
        """Do the same without the limit, at the moment when a process becomes the workers' user."""
        self._errors.log_once(self.warn)
        with contextlib.suppress(OSError):
            self.find_home()
        self._pending.move_in(self.lock)
        if not self.waits:
            self._errors.over()

    def give_up(self) -> None:
        """Store what waits if that is possible now, at the end of the process; count and log what is lost."""
        self.retry_now()
        if lost := self._pending.lost:
            count(self.board.cells, self._errors.cell, lost)
            if self.warn is not None:
                self.warn(f"The metrics store had no room until this process ended: {lost} of its series are lost")

    def _tend(self) -> None:
        """Repair the files of the slot and the links to them; what was found is logged once."""
        upkeep = self._upkeep.get()
        if upkeep is None:
            return
        with contextlib.suppress(OSError), self.change.begin():
            kept = upkeep.heal(self._files.values())
            count(self.board.cells, Cell.ERRORS_VANISHED, kept.healed)
            if kept.lost_rows:
                self.board.occupy(self.role, monotonic_ns())
                for listener in self._listeners:
                    listener()
        upkeep.tend(self.warn)

    def is_at_rest(self) -> bool:
        """Whether nothing :attr:`waits`, and nobody has touched the files of this slot since the last call."""
        return not self.waits and self._upkeep.is_untouched(self._files.values())

    def flush(self) -> None:
        """Write out a master's values: while its loop runs, before a fork, at exit. Never raises."""
        if self._home is not None:
            self._unwritten = True
            try:
                self._home.flush()
                self._unwritten = False
            except OSError as error:
                self.count_error(error)

    # ---- forks

    def _detach(self) -> None:
        self._files.clear()
        self._pending.clear()
        self.app.detach_values()
        for listener in self._listeners:
            listener()

    def _after_fork_in_child(self) -> None:
        self.change = ExclusiveChange()
        self._claiming = False
        is_worker = self._claims.after_fork_in_child()
        for file in self._files.values():
            file.close()
        if self._home is not None:
            self._home.close()
        self._errors.forked()
        self._home, self._upkeep = None, LateUpkeep()
        self.role = Role.WORKER if is_worker else Role.OTHER
        self.board = Board()
        self.board.occupy(self.role, monotonic_ns())
        if is_worker and self.directory is not None:
            self.directory.leave_to_masters()
        self._detach()

    def forget(self, locks: Iterable[SlotLock]) -> None:
        """Release claims made for children that are gone."""
        self._claims.forget(locks)


#: The store of this process. prometheus_client's value class is process-wide, so its store has to be as well.
STORE = ProcessStore()
