"""``--worker-type eventlet``."""

from __future__ import annotations

from promgun.workers._eventlet_server import EventletWorker
from promgun.workers._mixin import PrometheusConnectionMixin


class PrometheusEventletWorker(PrometheusConnectionMixin, EventletWorker):
    """promgun's eventlet worker, measured: Gunicorn's own was removed in 26.0."""

    has_loop = True
