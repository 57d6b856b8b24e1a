"""Asks workers without a heartbeat for a dump of their stacks, before ``--timeout`` has Gunicorn kill them."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from promgun.store.board import Cell
from promgun.workers._stack_dump import STACK_SIGNAL

#: Seconds for which a loop may be blocked without a word.
_BLOCKED = 1.0
#: Seconds by which a loop may be late before the master looks again when it will have been blocked for so long.
_SUSPECT = 0.05
_AFTER = 0.01
_NS = 1e9


class StackDumpWatchdog:
    """Overrides the arbiter's ``murder_workers`` (gunicorn 25.3 to 27.0), which its main loop calls about
    once a second.
    """

    cfg: Any
    context: Any
    log: Any
    timeout: int
    WORKERS: dict[int, Any]

    def __init__(self, *args: Any) -> None:
        self._asked: dict[int, float] = {}
        #: the configuration that the ratio of ``--stack-dump-at`` is from
        self._cfg: Any = None
        self._ratio = 0.0
        #: the silence that is asked about, and until when no worker can have been silent for so long
        self._patience, self._quiet_until = 0.0, 0.0
        #: by worker, when what its loop is late with was due, of the last time that it was asked for that
        self._blocked: dict[int, int] = {}
        #: by worker, the heartbeat behind which a blocked loop was asked about
        self._blocked_since: dict[int, float] = {}
        #: seconds until a loop that is late now is blocked, if it stays so
        self._look_again = _BLOCKED
        super().__init__(*args)

    def forget_silence(self) -> None:
        """Forget workers that are gone."""
        for pid in [pid for pid in self._asked if pid not in self.WORKERS]:
            del self._asked[pid]
        for pid in [pid for pid in self._blocked if pid not in self.WORKERS]:
            del self._blocked[pid]
            self._blocked_since.pop(pid, None)

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Wait as Gunicorn does, but look again in time while a loop is late."""
        return super().wait_for_signals(min(timeout, self._look_again))  # type: ignore[misc, no-any-return] # Arbiter's

    def murder_workers(self) -> None:
        """Ask workers that have been silent for long for their stacks, then kill those that were silent too long.

        While none can have been, as of the last look at their heartbeats, nobody looks again.
        """
        if self._cfg is not self.cfg:
            self._cfg, self._ratio = self.cfg, self.cfg.stack_dump_at
        is_silent = self.timeout > 0 and self._look_for_silence(self.timeout * (self._ratio or 1.0))
        if self._ratio:
            self.look_for_blocked_loops()
        if is_silent:
            super().murder_workers()  # type: ignore[misc] # the next class in the MRO, Gunicorn's Arbiter

    def _look_for_silence(self, patience: float) -> bool:
        """Ask workers that have been silent for so long for their stacks; return whether there may be one."""
        now = time.monotonic()
        if patience == self._patience and now < self._quiet_until:
            return False
        earliest = now
        for pid, worker in list(self.WORKERS.items()):
            beat = last_beat(worker)
            if beat and now - beat > patience and not worker.aborted:
                self.ask_for_stacks(pid, worker)
            # While it is not known, and until the first one, it is no time of this clock.
            earliest = min(earliest, beat) if beat else earliest
        self._patience, self._quiet_until = patience, earliest + patience
        return now >= self._quiet_until

    def look_for_blocked_loops(self) -> None:
        """Ask a worker for its stacks, once, while something blocks its event loop for more than a second.

        No block is missed: its loop was late at one of the looks of a second, and is looked at again in time.
        """
        from promgun.store.run_reader import read_slot_board  # noqa: PLC0415 - not before the first fork
        from promgun.workers._heartbeat_marks import is_marked  # noqa: PLC0415 - same

        now = time.monotonic()
        self._look_again = _BLOCKED
        for pid, worker in list(self.WORKERS.items()):
            if not getattr(worker, "has_loop", False) or worker.aborted or worker.slot is None:
                continue
            # The loop sends the heartbeat: it was not blocked then, and no request that runs may have blocked it since.
            if 0.0 <= now - last_beat(worker) <= _BLOCKED and not is_marked(worker.tmp):
                continue
            board = read_slot_board(self.context.directory, worker.slot.number)
            due = board[Cell.LOOP_DUE] if board is not None and board[Cell.PID] == pid else 0
            if board is None or not due or board[Cell.DRAINING] or self._blocked.get(pid) == due:
                continue
            late = (time.monotonic_ns() - due) / _NS
            if late > _BLOCKED:
                self._blocked[pid] = due
                beat = last_beat(worker)
                # A silence that was asked about may be the same block, and what is silent from now on is no news.
                if self._asked.get(pid) == beat != self._blocked_since.get(pid):
                    continue
                self._asked[pid] = self._blocked_since[pid] = beat
                self.log.warning("Worker (pid:%s) has blocked its event loop for %.1f s: its stacks follow", pid, late)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, STACK_SIGNAL)
            elif late > _SUSPECT:
                self._look_again = min(self._look_again, _BLOCKED - late + _AFTER)

    def ask_for_stacks(self, pid: int, worker: Any) -> None:
        """Ask a worker to dump its stacks, once for each silence."""
        if worker is None or not self.cfg.stack_dump_at or not hasattr(worker, "slot"):
            return
        beat = last_beat(worker)
        if self._asked.get(pid) == beat:
            return
        self._asked[pid] = beat
        self.log.warning(
            "Worker (pid:%s) has been silent for %.1f s, its timeout is %s s: its stacks follow",
            pid,
            silence(worker),
            self.timeout,
        )
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, STACK_SIGNAL)


def last_beat(worker: Any) -> float:
    """Return the time of a worker's last heartbeat, in monotonic seconds; 0 when it is not known."""
    try:
        return float(worker.tmp.last_update())
    except (OSError, ValueError):
        return 0.0


def silence(worker: Any) -> float:
    """Return the seconds since a worker's last heartbeat, 0 when that is not known."""
    beat = last_beat(worker)
    return time.monotonic() - beat if beat else 0.0
