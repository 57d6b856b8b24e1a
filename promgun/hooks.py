"""Hooks for plain Gunicorn: one line in ``gunicorn.conf.py`` adds the metrics process.

    worker_class = "promgun.PrometheusWorker"
    from promgun.hooks import when_ready

It listens where ``PROMGUN_METRICS_BIND`` says (several addresses apart by spaces), else on 127.0.0.1:9164. Plain
Gunicorn has no
place from which a metrics process that was killed could be started again: ``promgun run`` does that.
"""

from __future__ import annotations

import os
from typing import Any

from promgun.config.listeners import bind, close_and_unlink, parse_address
from promgun.endpoint.supervisor import MetricsProcess
from promgun.errors import PromgunError
from promgun.metrics.defaults import METRICS_ADDRESS


def when_ready(server: Any) -> None:
    """Serve the metrics of a plain Gunicorn master whose worker class is one of promgun's.

    Gunicorn calls it before the first fork. Trouble is logged as an error and the server goes on without an endpoint.
    """
    plain = getattr(server.worker_class, "plain", None)
    if plain is None:
        server.log.error(
            "No metrics endpoint: worker_class must be one of promgun's, e.g. promgun.PrometheusWorker, and "
            "'promgun run' needs no when_ready hook"
        )
        return
    addresses = os.environ.get("PROMGUN_METRICS_BIND", METRICS_ADDRESS).split()
    listeners = []
    try:
        for text in addresses:
            listeners.append(bind(parse_address(text), uid=server.cfg.uid, gid=server.cfg.gid))  # noqa: PERF401 - undone below
    except PromgunError as error:
        for listener in listeners:
            close_and_unlink(listener)
        server.log.error("No metrics endpoint: %s", error)
        return
    process = MetricsProcess(plain.endpoint_config(server.cfg), listeners, server.log)
    plain.serve(process)
