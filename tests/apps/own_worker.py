"""Worker classes of a user's own, which know nothing of promgun."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from promgun.workers._mixin import PrometheusMixin
from promgun.workers.gthread import PrometheusThreadWorker
from promgun.workers.sync import PrometheusWorker


class PoliteSyncWorker(SyncWorker):  # type: ignore[misc] # gunicorn is untyped
    """A sync worker with a change that does not matter."""


class PoliteThreaded(ThreadWorker):  # type: ignore[misc] # gunicorn is untyped
    """A threaded worker with a change that does not matter."""


class _Counting(PrometheusMixin):
    """Overrides what the mixin offers for that, and counts the calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: Counter[str] = Counter()

    def update_worker_metrics(self) -> None:
        """Count, and do as the mixin does."""
        self.calls["update_worker_metrics"] += 1
        super().update_worker_metrics()
        Path("updated").touch()

    def _generic_handle_request(self, *args: Any) -> Any:
        self.calls["_generic_handle_request"] += 1
        return super()._generic_handle_request(*args)

    def _generic_handle_error(self, *args: Any) -> None:
        self.calls["_generic_handle_error"] += 1
        super()._generic_handle_error(*args)

    def _handle_request_metrics(self, *args: Any) -> None:
        self.calls["_handle_request_metrics"] += 1
        super()._handle_request_metrics(*args)

    def _handle_request_error_metrics(self, *args: Any) -> None:
        self.calls["_handle_request_error_metrics"] += 1
        super()._handle_request_error_metrics(*args)


class CountingWorker(_Counting, PrometheusWorker):
    """Serves one request at a time, and counts."""


class CountingThreads(_Counting, PrometheusThreadWorker):
    """Serves requests in threads, and counts."""
