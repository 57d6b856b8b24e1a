"""``--worker-type gthread``."""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from promgun.store.running import Phase
from promgun.workers.mixin import PrometheusMixin

_QUEUED = int(Phase.QUEUED)
_READING = int(Phase.READING)


class PrometheusThreadWorker(PrometheusMixin, ThreadWorker):  # type: ignore[misc] # gunicorn is untyped
    """Gunicorn's threaded worker, measured."""

    request_at = 0

    def capacity(self) -> int:
        """Return the size of the thread pool."""
        return int(self.cfg.threads)

    def region_of(self, args: tuple[Any, ...]) -> int:
        """Return the region of the connection."""
        return int(getattr(args[1], "promgun", -1))

    def enqueue_req(self, conn: Any) -> None:
        """Hand a connection to the pool; until a thread takes it, it shows as ``queued``."""
        if not hasattr(conn, "promgun"):
            self.observe_arrival(conn.sock, conn.client)
        conn.promgun = self._board.requests.take(monotonic_ns(), _QUEUED)
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """Serve what a connection has sent, in a thread of the pool."""
        requests = self._board.requests
        region = conn.promgun
        requests.phase(region, _READING)
        try:
            return super().handle(conn)
        finally:
            conn.promgun = -1
            requests.leave(region)
