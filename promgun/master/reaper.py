"""Reaps workers: records each wait status, classifies it, counts it, and logs the requests that were lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from promgun.errors import ExitCode
from promgun.master.exit_causes import End, OomWatch, classify, control_group_events
from promgun.metrics.families.master import WORKER_EXITS
from promgun.metrics.families.requests import REQUESTS_LOST
from promgun.metrics.families.websockets import (
    ABNORMAL_CLOSE,
    WEBSOCKET_CLOSES,
)
from promgun.metrics.families.workers import WORKER_REQUESTS
from promgun.metrics.instruments import Instruments
from promgun.metrics.label_sets import OVERFLOW
from promgun.metrics.label_values import ExitCause
from promgun.store.board import BoardView, Cell, ExitHint, monotonic_ns
from promgun.store.request_table import read_uncounted
from promgun.store.slot_lock import SlotLock
from promgun.store.worker_table import WorkerTable
from promgun.system.procfs import process_start, read_usage

_BOOT_FAILURES = frozenset({ExitCode.WORKER_BOOT, ExitCode.APP_LOAD})
#: More requests than a worker can have at once; a higher count on a board is invalid.
_MOST_BEYOND_TABLE = 1_000_000
_ENDING = frozenset({signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGKILL})


class WaitRecorder:
    """Stands for ``os`` in Gunicorn's ``reap_workers``: ``waitpid`` is recorded, everything else is passed on.

    ``ended(pid)`` is called before a child is reaped, ``reaped(pid, status)`` afterwards; it returns the status that
    Gunicorn gets. A child is first found with ``WNOWAIT``, so that its CPU time can be read from /proc and added to its
    slot, and then reaped by its pid. Peeking at all workers before Gunicorn's own reap instead missed 3 ends of 262.
    """

    def __init__(self, ended: Callable[[int], None], reaped: Callable[[int, int], int]) -> None:
        self._ended = ended
        self._reaped = reaped

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def waitpid(self, pid: int, options: int) -> tuple[int, int]:
        """Wait as ``os.waitpid(-1, WNOHANG)`` does, and call back before and after an ended child is reaped."""
        # macOS has waitid only since Python 3.13
        if pid == -1 and hasattr(os, "waitid"):
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return 0, 0
            self._ended(found.si_pid)
            pid = found.si_pid
        reaped, status = os.waitpid(pid, options)
        if reaped:
            status = self._reaped(reaped, status)
        return reaped, status


class _Child:
    """A worker that the master has forked and not yet reaped."""

    def __init__(self, worker: Any, slot: SlotLock | None) -> None:
        self.worker = worker
        self.slot = slot
        self.intent: ExitCause | None = None
        #: When its graceful timeout ends, on the monotonic clock; 0 while the master has not asked it to stop.
        self.deadline = 0.0
        #: whether it was told to end at once, not once its requests are over
        self.quits = False
        self.killed_by_us = False
        self.logged = False
        #: its board as it left it: once it is reaped, another process may take its slot
        self.view: BoardView | None = None


class WorkerEnds:
    """Follows workers from fork to reap; all methods are for the master's main loop."""

    def __init__(
        self,
        instruments: Instruments,
        cgroup_dir: str | None,
        log: Any,
        table: WorkerTable,
        read_board: Callable[[int], BoardView | None],
        release: Callable[[SlotLock], None],
    ) -> None:
        self._counters = instruments.counters
        self._record = instruments.recorder.record
        self._observe = instruments.histograms.observe
        self._oom = OomWatch(control_group_events(cgroup_dir))
        self._log = log
        self._table = table
        self._read_board = read_board
        self._release = release
        self._children: dict[int, _Child] = {}
        self._seen: list[tuple[int, int]] = []
        #: takes the place of ``os`` in Gunicorn's ``reap_workers``
        self.recorded_os = WaitRecorder(self.before_reap, self.reaped)

    def on_fork(self, pid: int, worker: Any) -> None:
        """Remember a worker that was just forked."""
        child = self._children[pid] = _Child(worker, getattr(worker, "slot", None))
        if child.slot is not None:
            slot = child.slot
            self._table.forked(slot.number, pid, process_start(pid), monotonic_ns(), slot.owner_ended_at)

    def signalled(self, pid: int, number: int, intent: ExitCause, patience: float) -> None:
        """Note a signal that the master sends; the first reason to end a worker is kept.

        ``patience`` is the graceful timeout.
        """
        child = self._children.get(pid)
        if child is None or number not in _ENDING:
            return
        if child.intent is None:
            child.intent, child.deadline = intent, time.monotonic() + patience
            child.quits = number in {signal.SIGINT, signal.SIGQUIT}
        if number == signal.SIGKILL:
            child.killed_by_us = True
        elif child.slot is not None:
            # Recorded by the master, because a worker that is stuck or stopped cannot report it.
            self._table.draining(child.slot.number, monotonic_ns())

    def before_reap(self, pid: int) -> None:
        """Add what an ended worker used to its slot, and keep its board, before it is reaped and /proc forgets it."""
        child = self._children.get(pid)
        if child is not None and child.slot is not None:
            child.view = self._board_of(pid, child.slot)
            self._table.ended(child.slot.number, monotonic_ns(), read_usage(pid))

    def _board_of(self, pid: int, slot: SlotLock) -> BoardView | None:
        """Return the board of a worker as it left it; ``None`` when it never had one."""
        view = self._read_board(slot.number)
        return view if view is not None and view[Cell.PID] == pid else None

    def reaped(self, pid: int, status: int) -> int:
        """Record a wait status for :meth:`classify_ended`; return the status that Gunicorn should see.

        For a worker killed by the master itself Gunicorn sees a clean end; otherwise it would guess that memory ran
        out. The same goes for a worker that had booted and exits with 3 or 4, which Gunicorn would take for a failed
        boot and end the server (25.3 to 27.0).
        """
        self._seen.append((pid, status))
        child = self._children.get(pid)
        if child is None:
            return status
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) in _BOOT_FAILURES and child.slot is not None:
            view = child.view or self._board_of(pid, child.slot)
            if view is not None and view[Cell.BOOTED] > 0:
                self._log.error("Worker (pid:%s) exited with code %s.", pid, os.WEXITSTATUS(status))
                return 0
        return 0 if child.killed_by_us and status == signal.SIGKILL else status

    def classify_ended(self, living: Any) -> None:
        """Classify and count every worker that has ended since the last call; ``living`` is the arbiter's own table."""
        ended, self._seen = self._seen, []
        for pid, status in ended:
            child = self._children.pop(pid, None)
            if child is not None:
                self._count_end(pid, child, status)
        # It left the arbiter's table without a status: another part of the program reaped it.
        for pid in [pid for pid in self._children if pid not in living]:
            self._count_end(pid, self._children.pop(pid), 0)
        self._oom.forget_old(time.monotonic())

    def _count_end(self, pid: int, child: _Child, status: int) -> None:
        slot = child.slot
        view = child.view or self._board_of(pid, slot) if slot is not None else None
        unexplained_kill = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and not child.killed_by_us
        cause = classify(
            End(
                status=status,
                booted=view[Cell.BOOTED] > 0 if view is not None else slot is None,
                intent=child.intent,
                killed_by_us=child.killed_by_us,
                overdue=child.deadline > 0 and time.monotonic() >= child.deadline,
                aborted=bool(child.worker.aborted),
                hint=_hint(view),
                oom=unexplained_kill and self._oom.consume(),
                only_websockets=_holds_only_websockets(view),
            )
        )
        self._counters.inc(WORKER_EXITS, (cause,))
        if view is not None:
            self._count_requests_left(pid, child, view, cause)
        if slot is not None:
            if not self._table[slot.number].ended:
                self._table.ended(slot.number, monotonic_ns(), None)
            self._release(slot)

    def _count_requests_left(self, pid: int, child: _Child, view: BoardView, cause: ExitCause) -> None:
        """Count the requests that the worker had not counted: as answered when their head was sent, else as lost;
        a worker asked to end leaves them at the graceful timeout. Its websockets were cut off.
        """
        quits = child.quits and not cause.unclean
        if not cause.unclean:
            cause = ExitCause.GRACEFUL_TIMEOUT
        now, cut = monotonic_ns(), view[Cell.WEBSOCKETS] - 1
        for request in sorted(read_uncounted(view.data), key=lambda request: request.start):
            if request.status:
                # Its client has the status line: it was answered. How many bytes went each way is not known.
                self._record(request.method, request.route, request.status, request.age(now), 0, 0)
                self._counters.inc(WORKER_REQUESTS, (str(view.slot),))
            else:
                self._counters.inc(REQUESTS_LOST, (cause, request.route))
            if not child.logged and request.start:
                self._log_lost(
                    pid, cause, f"{request}, {request.age(now):.1f} s, {request.phase.name.lower()}", quits=quits
                )
        if 0 < cut <= _MOST_BEYOND_TABLE:
            # Their clients see the connection break off. How long each was open is not known.
            self._counters.inc(WEBSOCKET_CLOSES, (ABNORMAL_CLOSE,), cut)
        more = view[Cell.BEYOND_TABLE] - view[Cell.BEYOND_TABLE_ANSWERED]
        if 0 < more <= _MOST_BEYOND_TABLE:
            self._counters.inc(REQUESTS_LOST, (cause, OVERFLOW), more)
            if not child.logged:
                self._log_lost(pid, cause, f"{more} more requests", quits=quits)

    def _log_lost(self, pid: int, cause: ExitCause, request: str, *, quits: bool) -> None:
        if quits:
            self._log.warning("Worker (pid:%s) was still serving when it was told to quit: %s", pid, request)
        elif cause == ExitCause.GRACEFUL_TIMEOUT:
            # An end that was asked for is no error.
            self._log.warning("Worker (pid:%s) was still serving after --graceful-timeout: %s", pid, request)
        else:
            self._log.error("Worker (pid:%s) ended (%s) while serving: %s", pid, cause, request)

    def timing_out(self, pid: int) -> None:
        """Log the requests of a worker that is about to be killed because it sent no heartbeat."""
        child = self._children.get(pid)
        if child is None or child.slot is None or child.logged:
            return
        child.logged = True
        now = monotonic_ns()
        view = self._board_of(pid, child.slot)
        for request in view.running() if view is not None else ():
            self._log.critical(
                "Worker (pid:%s) timed out while serving: %s, %.1f s, %s",
                pid,
                request,
                request.age(now),
                request.phase.name.lower(),
            )


def _hint(view: BoardView | None) -> ExitHint:
    told = ExitHint.NONE if view is None else view[Cell.EXIT_HINT]
    return next((hint for hint in ExitHint if hint == told), ExitHint.NONE)


def _holds_only_websockets(view: BoardView | None) -> bool:
    """Whether websockets were open in a worker that has ended, and no request was running."""
    return view is not None and view[Cell.WEBSOCKETS] > 1 and not view.in_progress
