"""Which of Gunicorn's WSGI servers a worker class is built on, without importing those that it is not built on."""

from __future__ import annotations

import sys


def is_sync(worker_class: type) -> bool:
    """Whether a class is built on ``SyncWorker``."""
    return _derives(worker_class, "gunicorn.workers.sync", "SyncWorker")


def is_threaded(worker_class: type) -> bool:
    """Whether a class is built on ``ThreadWorker``."""
    return _derives(worker_class, "gunicorn.workers.gthread", "ThreadWorker")


def is_async(worker_class: type) -> bool:
    """Whether a class is built on ``AsyncWorker``, as those for gevent and eventlet are."""
    return _derives(worker_class, "gunicorn.workers.base_async", "AsyncWorker")


def _derives(worker_class: type, module: str, name: str) -> bool:
    # What is not loaded can have no subclass.
    loaded = sys.modules.get(module)
    return loaded is not None and issubclass(worker_class, getattr(loaded, name))
