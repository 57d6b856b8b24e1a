"""``--worker-type gevent``."""

from __future__ import annotations

from gunicorn.workers.ggevent import GeventWorker

from promgun.workers._mixin import PrometheusConnectionMixin


class PrometheusGeventWorker(PrometheusConnectionMixin, GeventWorker):  # type: ignore[misc] # gunicorn is untyped
    """Gunicorn's gevent worker, measured."""

    has_loop = True
