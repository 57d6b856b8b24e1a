"""``--worker-type sync``."""

from __future__ import annotations

from typing import Any

from gunicorn.workers.sync import SyncWorker

from promgun.workers.mixin import PrometheusMixin


class PrometheusWorker(PrometheusMixin, SyncWorker):  # type: ignore[misc] # gunicorn is untyped
    """Gunicorn's sync worker, measured.

    Its name must not end in ``SyncWorker``: with ``threads > 1`` Gunicorn swaps such a class for its plain threaded
    one.
    """

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn of threads, which this class does not have; Gunicorn calls it once, in the master."""
        if cfg.threads > 1:
            log.warning("PrometheusWorker serves one request at a time: for threads use promgun.PrometheusThreadWorker")
