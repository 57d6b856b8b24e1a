"""A worker's life on the scoreboard: its slot, its boot, its heartbeat, and why it ended."""

from __future__ import annotations

import os
import sys
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakMethod

from promgun.metrics.families.master import WORKER_BOOT_SECONDS, WORKER_EXITS
from promgun.metrics.instruments import Instruments
from promgun.metrics.label_values import ExitCause
from promgun.metrics.log_counter import count_log
from promgun.store.board import Board, Cell, ExitHint, Role
from promgun.store.process import STORE
from promgun.store.slot_lock import SlotLock
from promgun.system.procfs import cpu_wait_ns, unique_memory
from promgun.workers._fork_signals import DEFERRED_SIGNALS, guard_pre_fork
from promgun.workers._gc_stats import count_collections
from promgun.workers._routes import route_sources
from promgun.workers._server_kinds import is_async, is_sync, is_threaded
from promgun.workers._stack_dump import StackDump

if TYPE_CHECKING:
    from collections.abc import Callable

    from promgun.workers._standalone import StandaloneRun

_SECOND = 1_000_000_000
_SELF_REPORT = 10 * _SECOND
#: Nanoseconds, a hundredth of the shortest timeout: a worker is ended, or shown as hung, that much earlier at most.
HEARTBEAT_PAUSE = 10_000_000
#: How long a worker at rest does not look at its files, though it has heartbeats.
_AT_REST = 2 * _SECOND
#: How long a worker rests at most: what a look at the files does not tell is then seen to.
_LONGEST_REST = 300 * _SECOND
_HEARTBEAT = int(Cell.HEARTBEAT)
_DRAINING = int(Cell.DRAINING)
_HINT = int(Cell.EXIT_HINT)


class WorkerLifecycle:
    """Keeps a worker's slot, state and heartbeat on the scoreboard; precedes any Gunicorn worker class in the MRO.

    It does not depend on how that class serves requests. ``slot`` and ``worker_id`` are set in the master, before the
    fork, and all other attributes in the worker, by ``init_process``.
    """

    # With more than 30 names in its dictionary, CPython 3.11 and newer find a worker's attributes more slowly.
    __slots__ = ("_board", "_changes_user", "_collections", "_heartbeat", "_longest_rest", "_next_beat_at",
                 "_next_notify", "_own_pid", "_passes_all_on", "_reported", "_rest_ends", "_stacks",
                 "_unique_memory_due", "_update_at", "_waited", "_work_seen", "at_rest", "instruments", "routes",
                 "slot", "worker_id")  # fmt: skip
    #: promgun's set-up in a master that runs without ``promgun run``; None under ``promgun run``.
    standalone: ClassVar[StandaloneRun | None] = None
    #: Whether one thread serves all requests of the class, on an event loop or a hub.
    has_loop = False

    app: Any
    cfg: Any
    log: Any
    sockets: list[Any]
    alive: bool
    age: int
    nr: int
    ppid: int
    max_requests: int

    # ---- in the master

    @classmethod
    def setup(cls) -> None:
        """Open the store, unless ``promgun run`` has; Gunicorn calls this in the master when it loads the class."""
        inherited = getattr(super(), "setup", None)
        if inherited is not None:
            inherited()
        if cls.has_loop:
            from promgun.workers import _task_dump  # noqa: F401, PLC0415 - its workers have it then
        if STORE.directory is None:
            from promgun.workers._standalone import StandaloneRun  # noqa: PLC0415 - only without promgun run

            WorkerLifecycle.standalone = StandaloneRun(STORE)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Claim a slot, which the next forked process inherits."""
        super().__init__(*args, **kwargs)
        if self.standalone is not None:
            self.standalone.register(self.cfg, self.app, self.log, self.sockets)
        self._changes_user = os.geteuid() == 0 and bool(self.cfg.uid)
        if self._changes_user:
            from promgun.workers._load_ahead import load_ahead  # noqa: PLC0415 - only for such workers

            load_ahead()
        self.slot: SlotLock | None = STORE.reserve()
        self.worker_id = "" if self.slot is None else str(self.slot.number)
        DEFERRED_SIGNALS.expect_fork(self)
        guard_pre_fork(self.cfg)

    # ---- in the worker: methods for subclasses to extend

    def prepare(self) -> None:
        """Get ready to serve, before the application is loaded; board and instruments exist already."""

    def capacity(self) -> int:
        """Return how many requests the worker can serve at once, 0 where that is not known."""
        if is_async(type(self)):
            return int(self.cfg.worker_connections)
        return int(self.cfg.threads) if is_threaded(type(self)) else 1

    def _times_requests(self) -> bool:
        """Whether the CPU time of requests can be told, because a thread serves one at a time, and is wanted."""
        wanted = self.standalone is None or self.standalone.wants_request_cpu
        return wanted and (is_sync(type(self)) or is_threaded(type(self)))

    def hung_after(self) -> float:
        """Return the seconds without a heartbeat after which the worker is shown as hung, 0 for never."""
        return float(self.cfg.timeout) / 2

    def work_begun(self) -> int | None:
        """Return a number that grows with each request; ``None`` where it is not known, or while requests run."""
        return None

    # ---- Gunicorn's methods

    def init_process(self) -> None:
        """Occupy the slot, then boot as the worker class does."""
        STORE.warn = self.log.warning
        self._own_pid = os.getpid()
        if (number := STORE.own_slot(Role.WORKER)) is not None:
            self.worker_id = str(number)
        self.instruments = Instruments(STORE, self.cfg, cpu=self._times_requests())
        self._update_at = 0
        self.at_rest = False
        self._rest_ends = 0
        self._longest_rest = _SELF_REPORT if self._changes_user else _LONGEST_REST
        if STORE.directory is not None and STORE.directory.second_client is not None:
            # Its claim on a directory that other runs may want is renewed, and theirs looked at, once a second.
            self._longest_rest = 0
        self._work_seen: int | None = None
        self._reported = self._unique_memory_due = self._waited = 0
        count_log(self.instruments.counters, self.log)
        self._board: Board = STORE.board
        self._next_notify: Callable[[], None] = super().notify  # type: ignore[misc] # the next class in the MRO
        self._next_beat_at = self._heartbeat = 0
        #: whether the master gets every heartbeat, also those that the scoreboard does not need
        self._passes_all_on = True
        # A response's close reaches the sources of routes, and would keep worker and application from being finalized.
        warn = WeakMethod(self._warn_of_routes)
        self.routes = route_sources(self.cfg, lambda *message: (found := warn()) and found(*message))
        self.prepare()
        cells = self._board.cells
        cells[Cell.AGE] = self.age
        cells[Cell.CAPACITY] = self.capacity()
        cells[Cell.MAX_REQUESTS] = self.max_requests if self.max_requests != sys.maxsize else 0
        # The worker is shown as hung after half of this cell's value.
        cells[Cell.TIMEOUT] = int(2 * self.hung_after() * _SECOND)
        self._collections = count_collections(cells)
        self._stacks = StackDump(self.log)
        super().init_process()  # type: ignore[misc] # the next class in the MRO

    def init_signals(self) -> None:
        """Set the worker's signals, deliver those that came since the fork, and answer the master's SIGURG."""
        # From here on the process runs as the worker's user (gunicorn 25.3 to 27.0 ``Worker.init_process``), so earlier
        # counts can move into its files.
        STORE.retry_now()
        super().init_signals()  # type: ignore[misc] # the next class in the MRO
        self._stacks.install()
        DEFERRED_SIGNALS.deliver()

    def run(self) -> None:
        """Serve, then note why the worker ends."""
        self.enter_service()
        try:
            super().run()  # type: ignore[misc] # the next class in the MRO
        finally:
            self.note_exit()
            STORE.give_up()

    def enter_service(self) -> None:
        """Note that the worker serves from now on, and how long its boot took."""
        cells = self._board.cells
        now = monotonic_ns()
        cells[Cell.BOOTED] = now
        self.instruments.histograms.observe(WORKER_BOOT_SECONDS, (), (now - cells[Cell.CLAIMED]) / _SECOND)
        STORE.app.tick()
        self.routes.install()
        self._update_at = now + _SECOND  # not before the first answer

    def _warn_of_routes(self, *message: Any) -> None:
        # Its first worker says for the server what all of them would.
        if self.age <= 1:
            self.log.warning(*message)

    def note_exit(self) -> None:
        """Write to the board why the worker ends by itself; the master combines this with the wait status."""
        if self._own_pid != os.getpid():  # a child that the application forked and that returned from the request
            return
        cells = self._board.cells
        if self.ppid != os.getppid():
            cells[_HINT] = ExitHint.PARENT_LOST
            # The master is gone, so nobody would count it.
            self.instruments.counters.inc(WORKER_EXITS, (ExitCause.PARENT_LOST,))
        elif self.nr >= self.max_requests and not cells[_HINT]:
            cells[_HINT] = ExitHint.MAX_REQUESTS
        elif self.cfg.reload and not self.alive and not cells[_HINT]:
            cells[_HINT] = ExitHint.CODE_CHANGED

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to drain; only touches cells, because it is a signal handler."""
        cells = self._board.cells
        cells[_HINT], cells[_DRAINING] = ExitHint.SIGNALLED, 1
        super().handle_exit(sig, frame)  # type: ignore[misc] # the next class in the MRO

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Quit; only touches cells, because it is a signal handler."""
        self._board.cells[_HINT] = ExitHint.SIGNALLED
        STORE.worker_quits = True
        super().handle_quit(sig, frame)  # type: ignore[misc] # the next class in the MRO

    def handle_abort(self, sig: int, frame: Any) -> None:
        """Note that the worker timed out, and dump the stacks that the master asked for if that is still to be done."""
        self._board.cells[_HINT] = ExitHint.ABORTED
        STORE.worker_quits = True
        if self.standalone is None and self.cfg.stack_dump_at:
            self._stacks.finish()
        super().handle_abort(sig, frame)  # type: ignore[misc] # the next class in the MRO

    def notify(self) -> None:
        """Send the heartbeat to the master and, if the last one is 10 ms old, to the scoreboard."""
        self._heartbeat = now = monotonic_ns()
        notify = self._next_notify  # in a variable: CPython 3.11 looks a method up in the class before the instance
        if now < self._next_beat_at:
            if self._passes_all_on:
                notify()
            return
        notify()
        self._next_beat_at = now + HEARTBEAT_PAUSE
        if now > self._update_at:
            # First, because it mends a board whose file was cut: a touch of that would kill the process.
            self.update_worker_metrics()
        self._board.cells[_HEARTBEAT] = now

    def handle_usr1(self, sig: int, frame: Any) -> None:
        """Reopen the logs; only touches attributes besides, because it is a signal handler."""
        super().handle_usr1(sig, frame)  # type: ignore[misc] # the next class in the MRO
        self._update_at = self._rest_ends = 0

    # ---- once a second

    def update_worker_metrics(self) -> None:
        """Update the worker's own figures and retry values that found no space; at rest next to nothing is done."""
        now = monotonic_ns()
        self._update_at = now + _SECOND
        self.at_rest = now < self._rest_ends and self._rests()
        if self.at_rest:
            self._update_at = now + _AT_REST
            return
        self._work_seen = self.work_begun()
        self._rest_ends = now + self._longest_rest
        self.instruments.retry()
        cells = self._board.cells
        cells[_DRAINING] = not self.alive
        self._collections.cells = cells
        self._stacks.install()
        waited = cpu_wait_ns()
        if waited is not None:
            cells[Cell.CPU_WAIT] += waited - self._waited
            self._waited = waited
        self.routes.install()
        if self._changes_user and now - self._reported > _SELF_REPORT:
            self._reported = now
            self._report_hidden_figures()

    def _rests(self) -> bool:
        """Whether there was no work since the last update, and nothing is left to do; asks gauges for their value."""
        work = self.work_begun()
        if work is None or work != self._work_seen or not self.alive:
            return False
        if not (STORE.app.is_stored() and STORE.is_at_rest()):
            return False
        if STORE.app.asks_functions():
            STORE.app.tick()
        return True

    def _report_hidden_figures(self) -> None:
        """Report what the metrics process cannot read: a process that changed its user is not dumpable (proc(5))."""
        from promgun.config.unique_memory import unique_memory_of  # noqa: PLC0415 - loaded ahead by such workers

        cells = self._board.cells
        try:
            cells[Cell.OPEN_FDS] = len(os.listdir("/proc/self/fd"))
            seconds = unique_memory_of(self.cfg, os.environ)
            if seconds and self._reported >= self._unique_memory_due:
                self._unique_memory_due = self._reported + seconds * _SECOND
                cells[Cell.UNIQUE_MEMORY] = unique_memory()
        except OSError:
            return
