"""Imports what a worker would import later, for one that changes its user and may then not be able to read it."""

from __future__ import annotations

from importlib import import_module

from promgun.routes import sources
from promgun.store import healing, late_app_metrics, late_upkeep


def load_ahead() -> None:
    """Import all that the other modules of a worker import within functions."""
    healing.load_ahead()
    sources.load_ahead()
    late_upkeep.load_ahead()
    late_app_metrics.load_ahead()
    for name in ("config.unique_memory", "workers._application_kind", "workers._task_dump"):
        import_module(f"promgun.{name}")
    # random.seed of CPython 3.14 does, which Gunicorn calls once the user has changed.
    import_module("hashlib")
