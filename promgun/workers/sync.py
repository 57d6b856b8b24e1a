"""``--worker-type sync``."""

from __future__ import annotations

import threading
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from gunicorn.workers.sync import SyncWorker

from promgun.store.request_table import FIRST, PHASE, START, Phase
from promgun.workers._mixin import PrometheusMixin
from promgun.workers._queue_time import TICK_NS

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that a worker waits for a connection while it is tended once a second, and at most while it rests. Only
#: between two waits does it see that its master is gone, like Gunicorn's own.
_TENDED, _RESTING = 1.0, 15.0
_READING = int(Phase.READING)
_PHASE, _START = FIRST + PHASE, FIRST + START


class PrometheusWorker(PrometheusMixin, SyncWorker):  # type: ignore[misc] # gunicorn is untyped
    """Gunicorn's sync worker, measured.

    Its name must not end in ``SyncWorker``: with ``threads > 1`` Gunicorn swaps such a class for its plain threaded
    one.
    """

    __slots__ = ("_next_handle", "_resting_since", "_running")

    only_region = FIRST

    def prepare(self) -> None:
        """Get ready to follow connections as well."""
        super().prepare()
        self._running = self.accounting.running
        self._next_handle: Callable[..., None] = super().handle
        #: how many requests it had served when it began to rest, -1 if it does not rest
        self._resting_since = -1

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn of a ``threads`` setting, which this class ignores; Gunicorn calls this once, in the master."""
        if cfg.threads > 1:
            log.warning("PrometheusWorker serves one request at a time: for threads use promgun.PrometheusThreadWorker")

    def wait(self, timeout: float) -> Any:
        """Wait for a connection: as long as Gunicorn does when the worker rests, else for a second at most."""
        longest = _RESTING if self.nr == self._resting_since else _TENDED
        ready = super().wait(longest if timeout > longest else timeout)  # noqa: FURB136 - a call of min() takes longer
        self._heartbeat = 0
        arrivals = self.observe_arrival
        arrivals.ask_at = arrivals.pause_ends
        return ready

    def update_worker_metrics(self) -> None:
        """Update the worker's own figures, and find out whether it may rest: threads may change values at any time."""
        super().update_worker_metrics()
        self._resting_since = self.nr if self.at_rest and threading.active_count() == 1 else -1

    def hung_after(self) -> float:
        """Return seconds halfway between the longest pause between two heartbeats and the timeout."""
        timeout = float(self.cfg.timeout)
        return (min(timeout / 2, _RESTING) + timeout) / 2

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection; it is shown as ``reading`` until its request's head has arrived."""
        # The heartbeat was just before accept, which did not block.
        now = self._heartbeat or monotonic_ns()
        self._heartbeat = 0
        running, next_handle = self._running, self._next_handle
        cells = running.cells
        cells[_PHASE] = _READING
        cells[_START] = now
        try:
            if addr.__class__ is tuple:
                arrivals = self.observe_arrival
                arrivals.left = left = arrivals.left - 1
                if left <= 0 or now >= arrivals.ask_at:
                    arrivals.ask(client, now)
                # What comes right behind a long request has probably waited for it.
                arrivals.ask_at = now + TICK_NS
            next_handle(listener, client, addr)
        finally:
            running.cells[_START] = 0
