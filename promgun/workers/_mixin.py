"""What stands in front of a Gunicorn worker class and measures it: its life here, its requests in ``requests``."""

from __future__ import annotations

import os
import sys
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, ClassVar

from promgun.metrics.families.master import WORKER_BOOT_SECONDS, WORKER_EXITS
from promgun.metrics.families.workers import WORKER_REQUESTS
from promgun.metrics.instruments import Instruments, count_log
from promgun.metrics.label_values import ExitCause
from promgun.store.board import Cell, ExitHint, Role
from promgun.store.process import STORE
from promgun.system.procfs import cpu_wait_ns
from promgun.workers._config_cache import settle
from promgun.workers._fork_signals import HELD_SIGNALS
from promgun.workers._gc_stats import count_collections
from promgun.workers._instrumentation import RequestFollower
from promgun.workers._queue_time import TrustedPeers
from promgun.workers._stack_dump import StackDump

if TYPE_CHECKING:
    from collections.abc import Callable

    from promgun.workers._standalone import PlainRun

_SECOND = 1_000_000_000
_SELF_REPORT = 10 * _SECOND
_HEARTBEAT = int(Cell.HEARTBEAT)
_DRAINING = int(Cell.DRAINING)
_HINT = int(Cell.EXIT_HINT)


class PrometheusMixin(RequestFollower):
    """Adds metrics to any Gunicorn worker class that it is put in front of."""

    #: What ``promgun run`` does otherwise, where plain Gunicorn is the launcher.
    plain: ClassVar[PlainRun | None] = None

    app: Any
    cfg: Any
    sockets: list[Any]
    alive: bool
    age: int
    ppid: int

    @classmethod
    def setup(cls) -> None:
        """Open the store, unless ``promgun run`` has; Gunicorn calls this in the master before it loads anything of
        the user's.
        """
        inherited = getattr(super(), "setup", None)
        if inherited is not None:
            inherited()
        if STORE.directory is None:
            from promgun.workers._standalone import PlainRun  # noqa: PLC0415 - only where promgun is not the launcher

            PrometheusMixin.plain = PlainRun(STORE)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take a slot in the master, before the fork: this worker alone inherits it."""
        super().__init__(*args, **kwargs)
        if self.plain is not None:
            self.plain.introduce(self.cfg, self.app, self.log, self.sockets)
        self.slot = STORE.reserve()
        self.worker_id = "" if self.slot is None else str(self.slot.number)

    def follow(self) -> None:
        """Get ready to follow requests and signs of life."""
        super().follow()
        self._notify_behind: Callable[[], None] = super().notify  # type: ignore[misc] # the worker class behind us

    def capacity(self) -> int:
        """Return how many requests the worker can serve at once."""
        return 1

    # ---- life

    def init_process(self) -> None:
        """Take the slot over in the child, then boot as the class does."""
        STORE.warn = self.log.warning
        slot = STORE.own_slot(Role.WORKER)
        if slot is not None:
            self.worker_id = str(slot.number)
        self.instruments = Instruments(STORE, self.cfg)
        if slot is not None:
            # It is there with 0 before the first request.
            self.instruments.counters.inc(WORKER_REQUESTS, (self.worker_id,), 0.0)
        self._tend_at = 0
        self._reported = 0
        self._waited = 0
        self._changes_user = os.geteuid() == 0 and bool(self.cfg.uid)
        count_log(self.instruments.counters)
        self._board = STORE.board
        self._trusted = TrustedPeers(self.cfg)
        self.follow()
        cells = self._board.cells
        cells[Cell.AGE] = self.age
        cells[Cell.CAPACITY] = self.capacity()
        cells[Cell.MAX_REQUESTS] = self.max_requests if self.max_requests != sys.maxsize else 0
        cells[Cell.TIMEOUT] = int(self.cfg.timeout * _SECOND)
        self._collections = count_collections(cells)
        self._stacks = StackDump(self.log)
        super().init_process()  # type: ignore[misc] # the worker class behind us

    def init_signals(self) -> None:
        """Set the worker's signals, let in those that came since the fork, and answer the master's question for
        stacks.
        """
        super().init_signals()  # type: ignore[misc] # the worker class behind us
        self._stacks.install()
        HELD_SIGNALS.release()

    def load_wsgi(self) -> None:
        """Load the application and stand in front of it."""
        super().load_wsgi()  # type: ignore[misc] # the worker class behind us
        self.wsgi = self.follow_application(self.wsgi)

    def run(self) -> None:
        """Note that the worker is ready, serve, and leave word why it ends."""
        cells = self._board.cells
        now = monotonic_ns()
        cells[Cell.BOOTED] = now
        boot = (now - cells[Cell.CLAIMED]) / _SECOND
        self.instruments.histograms.observe(WORKER_BOOT_SECONDS, (), boot)
        settle(self.cfg)
        try:
            super().run()  # type: ignore[misc] # the worker class behind us
        finally:
            self._leave_word()

    def _leave_word(self) -> None:
        cells = self._board.cells
        if self.ppid != os.getppid():
            cells[_HINT] = ExitHint.PARENT_LOST
            # No master is left that could count it.
            self.instruments.counters.inc(WORKER_EXITS, (ExitCause.PARENT_LOST,))
        elif self.nr >= self.max_requests and not cells[_HINT]:
            cells[_HINT] = ExitHint.MAX_REQUESTS
        elif self.cfg.reload and not self.alive and not cells[_HINT]:
            cells[_HINT] = ExitHint.CODE_CHANGED

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to drain; only cells are touched, for this is a signal handler."""
        self._board.cells[_HINT] = ExitHint.SIGNALLED
        self._board.cells[_DRAINING] = 1
        super().handle_exit(sig, frame)  # type: ignore[misc] # the worker class behind us

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Quit; only cells are touched, for this is a signal handler."""
        self._board.cells[_HINT] = ExitHint.SIGNALLED
        super().handle_quit(sig, frame)  # type: ignore[misc] # the worker class behind us

    def handle_abort(self, sig: int, frame: Any) -> None:
        """Note that the master has given the worker up, and show the stacks that it asked for a moment ago."""
        self._board.cells[_HINT] = ExitHint.ABORTED
        if self.plain is None and self.cfg.stack_dump_at:
            self._stacks.last_words()
        super().handle_abort(sig, frame)  # type: ignore[misc] # the worker class behind us

    def notify(self) -> None:
        """Tell the master, and the scoreboard, that the worker is alive."""
        self._notify_behind()
        now = monotonic_ns()
        self._board.cells[_HEARTBEAT] = now
        if now > self._tend_at:
            self.update_worker_metrics()

    def update_worker_metrics(self) -> None:
        """Tend, once a second, to what cannot be done in a request: the worker's own state, what waits for space."""
        now = monotonic_ns()
        self._tend_at = now + _SECOND
        self._tend(now)

    def _tend(self, now: int) -> None:
        self._board.cells[_DRAINING] = not self.alive
        self._collections.cells = self._board.cells
        self._stacks.install()
        waited = cpu_wait_ns()
        if waited is not None:
            self._board.cells[Cell.CPU_WAIT] += waited - self._waited
            self._waited = waited
        self.instruments.retry()
        if self._changes_user and now - self._reported > _SELF_REPORT:
            self._reported = now
            self._report_itself()

    def _report_itself(self) -> None:
        """Say what others of our user may not see: a process that changed user is not dumpable (proc(5))."""
        cells = self._board.cells
        try:
            cells[Cell.OPEN_FDS] = len(os.listdir("/proc/self/fd"))
            with open("/proc/self/smaps_rollup", "rb") as rollup:
                cells[Cell.UNIQUE_MEMORY] = 1024 * sum(
                    int(line.split()[1]) for line in rollup if line.startswith((b"Private_Clean", b"Private_Dirty"))
                )
        except OSError:
            return
