"""An application that does to prometheus_client what promgun's setting-up has done already, and logs its own way."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from gunicorn.glogging import Logger
from prometheus_client import CollectorRegistry, Counter, Gauge, values

ordered = Counter("shop_orders", "Orders.")
Gauge("shop_stock", "Asked of a library that exits where it cannot answer.").set_function(lambda: sys.exit(1))
Gauge("shop_orders_total", "A second metric of this name.", registry=CollectorRegistry()).set(1)


class OwnLogger(Logger):  # type: ignore[misc] # gunicorn is untyped
    """Writes errors to a logger of its own, warnings to Gunicorn's."""

    def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log an error."""
        logging.getLogger("own").error(msg, *args, **kwargs)


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Count an order; ``/change`` sets the variable and the value class, ``/fail`` raises."""
    ordered.inc()
    if environ["PATH_INFO"] == "/change":
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.getcwd()
        values.ValueClass = values.MultiProcessValue(os.getpid)  # type: ignore[no-untyped-call]
    if environ["PATH_INFO"] == "/fail":
        raise ValueError("an error of the application's")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
