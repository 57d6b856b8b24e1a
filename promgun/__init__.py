"""promgun: run a Python web application under Gunicorn and show it to Prometheus.

The names below are loaded when asked for, so that importing the package stays free of side effects.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "PrometheusMixin": "promgun.workers._mixin",
    "PrometheusWorker": "promgun.workers.sync",
    "PrometheusThreadWorker": "promgun.workers.gthread",
    "PrometheusGeventWorker": "promgun.workers.gevent",
    "PrometheusEventletWorker": "promgun.workers.eventlet",
    "PrometheusASGIWorker": "promgun.workers.asgi",
    "PrometheusUvicornWorker": "promgun.workers.uvicorn",
}

__all__ = [  # noqa: PLE0604 - the names are the keys of the table above
    "__version__",
    *_LAZY,
]


def __getattr__(name: str) -> Any:
    """Load a worker class when it is first named, e.g. by ``gunicorn -k promgun.PrometheusWorker``."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
