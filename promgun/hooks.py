"""Hooks for plain Gunicorn: one line in ``gunicorn.conf.py`` adds the metrics process.

    worker_class = "promgun.PrometheusWorker"
    from promgun.hooks import when_ready

It listens where ``PROMGUN_METRICS_BIND`` says (addresses with spaces between them), by default on 127.0.0.1:9164, and
is protected as ``PROMGUN_METRICS_WEB_CONFIG`` and the other variables of :mod:`promgun.config.web_options` say;
``PROMGUN_METRICS_COLLECTOR`` names collectors of the application's own (:mod:`promgun.config.collectors`), and
``PROMGUN_METRICS_UNIQUE_MEMORY`` is how often, in seconds, each worker's unique memory is read (0 for never). Plain
Gunicorn has no place from which a metrics process that was killed could be started again: ``promgun run`` does that.
"""

from __future__ import annotations

import os
from typing import Any

from promgun.config.listeners import bind_all
from promgun.config.metrics_addresses import parse_address
from promgun.config.web_options import web_options_from
from promgun.endpoint.process import check_web
from promgun.endpoint.supervisor import MetricsProcess
from promgun.errors import PromgunError
from promgun.metrics.defaults import METRICS_ADDRESS


def when_ready(server: Any) -> None:
    """Serve the metrics of a plain Gunicorn master whose worker class is one of promgun's.

    Gunicorn calls it before the first fork. Trouble is logged as an error and the server goes on without an endpoint.
    """
    run = getattr(server.worker_class, "standalone", None)
    if run is None:
        server.log.error(
            "No metrics endpoint: worker_class must be one of promgun's, e.g. promgun.PrometheusWorker, and "
            "'promgun run' needs no when_ready hook"
        )
        return
    addresses = os.environ.get("PROMGUN_METRICS_BIND", METRICS_ADDRESS).split()
    try:
        config = run.endpoint_config(server.cfg, web_options_from(os.environ))
        tls = check_web(config)
        listeners = bind_all(map(parse_address, addresses), uid=server.cfg.uid, gid=server.cfg.gid)
    except (PromgunError, ValueError) as error:
        server.log.error("No metrics endpoint: %s", error)
        return
    run.serve(MetricsProcess(config, tuple(listeners.values()), server.log), tls=tls)
