"""``--worker-type gthread``."""

from __future__ import annotations

from gunicorn.workers.gthread import ThreadWorker

from promgun.workers.mixin import PrometheusMixin


class PrometheusThreadWorker(PrometheusMixin, ThreadWorker):  # type: ignore[misc] # gunicorn is untyped
    """Gunicorn's threaded worker, measured."""

    request_at = 0

    def capacity(self) -> int:
        """Return the size of the thread pool."""
        return int(self.cfg.threads)
