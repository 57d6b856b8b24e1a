"""``--worker-type sync``."""

from __future__ import annotations

import sys
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from gunicorn.workers.sync import SyncWorker

from promgun.store.request_table import FIRST, PHASE, START, Phase
from promgun.workers._mixin import PrometheusMixin
from promgun.workers._queue_time import TICK_NS

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE = 1.0
_READING = int(Phase.READING)
_PHASE, _START = FIRST + PHASE, FIRST + START


class PrometheusWorker(PrometheusMixin, SyncWorker):  # type: ignore[misc] # gunicorn is untyped
    """Gunicorn's sync worker, measured.

    Its name must not end in ``SyncWorker``: with ``threads > 1`` Gunicorn swaps such a class for its plain threaded
    one.
    """

    only_region = FIRST

    def prepare(self) -> None:
        """Get ready to follow connections as well."""
        super().prepare()
        self._running = self.accounting.running
        self._next_handle: Callable[..., None] = super().handle
        #: when the last connection was taken, if the worker has not waited for one since
        self._taken = sys.maxsize

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn of a ``threads`` setting, which this class ignores; Gunicorn calls this once, in the master."""
        if cfg.threads > 1:
            log.warning("PrometheusWorker serves one request at a time: for threads use promgun.PrometheusThreadWorker")

    def wait(self, timeout: float) -> Any:
        """Wait for a connection, for a second at most.

        Gunicorn's own method waits for half the timeout: for that long it would not notice that its master is gone, and
        an idle worker would be shown as hung.
        """
        self._taken = sys.maxsize
        return super().wait(min(timeout, _IDLE))

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection; it is shown as ``reading`` until its request's head has arrived."""
        now = monotonic_ns()
        running = self._running
        cells = running.cells
        cells[_PHASE] = _READING
        cells[_START] = now
        try:
            if addr.__class__ is tuple:
                # What comes right behind a long request has probably waited for it.
                self.observe_arrival(client, now, now - self._taken > TICK_NS)
                self._taken = now
            self._next_handle(listener, client, addr)
        finally:
            running.cells[_START] = 0
