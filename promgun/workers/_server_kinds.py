"""Which server a worker class is built on, without importing those that it is not built on."""

from __future__ import annotations

import sys


def is_sync(worker_class: type) -> bool:
    """Whether a class is built on ``SyncWorker``."""
    return derives(worker_class, "gunicorn.workers.sync", "SyncWorker")


def is_threaded(worker_class: type) -> bool:
    """Whether a class is built on ``ThreadWorker``."""
    return derives(worker_class, "gunicorn.workers.gthread", "ThreadWorker")


def is_async(worker_class: type) -> bool:
    """Whether a class is built on ``AsyncWorker``, as those for gevent and eventlet are."""
    return derives(worker_class, "gunicorn.workers.base_async", "AsyncWorker")


def derives(worker_class: type, module: str, name: str) -> bool:
    """Whether a class is built on the class ``name`` of a module; what is not loaded can have no subclass."""
    loaded = sys.modules.get(module)
    return loaded is not None and issubclass(worker_class, getattr(loaded, name))
