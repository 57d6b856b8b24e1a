"""Worker classes of a user's own, which know nothing of promgun."""

from __future__ import annotations

from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker


class PoliteSyncWorker(SyncWorker):  # type: ignore[misc] # gunicorn is untyped
    """A sync worker with a change that does not matter."""


class PoliteThreaded(ThreadWorker):  # type: ignore[misc] # gunicorn is untyped
    """A threaded worker with a change that does not matter."""
