"""``--worker-type sync``."""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from gunicorn.workers.sync import SyncWorker

from promgun.store.running import Phase
from promgun.workers.mixin import PrometheusMixin

_IDLE = 1.0
_READING = int(Phase.READING)


class PrometheusWorker(PrometheusMixin, SyncWorker):  # type: ignore[misc] # gunicorn is untyped
    """Gunicorn's sync worker, measured.

    Its name must not end in ``SyncWorker``: with ``threads > 1`` Gunicorn swaps such a class for its plain threaded
    one.
    """

    _region = -1

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn of threads, which this class does not have; Gunicorn calls it once, in the master."""
        if cfg.threads > 1:
            log.warning("PrometheusWorker serves one request at a time: for threads use promgun.PrometheusThreadWorker")

    def wait(self, timeout: float) -> Any:
        """Wait for a connection, but for no more than a second: Gunicorn's own worker would not notice for half the
        timeout that its
        master is gone, and would look hung while it is idle.
        """
        return super().wait(min(timeout, _IDLE))

    def region_of(self, args: tuple[Any, ...]) -> int:  # noqa: ARG002 - there is one connection at a time
        """Return the region of the one connection."""
        return self._region

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection; a client that is slow to send its head holds the worker, and shows as ``reading``."""
        self.observe_arrival(client, addr)
        requests = self._board.requests
        region = self._region = requests.take(monotonic_ns(), _READING)
        try:
            super().handle(listener, client, addr)
        finally:
            self._region = -1
            requests.leave(region)
