"""An application whose metrics prometheus_client keeps out of value files, by what the environment says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Enum, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: Which version of the application this is: a file in the working directory that a test writes anew.
VERSION = int(Path("version").read_text()) if Path("version").exists() else 1

BUILD = Info("shop_build", "What runs.", ["part"])
BUILD.labels("web").info({"version": str(VERSION)})
MODE = Enum("shop_mode", "How it runs.", states=["open", "closed"] if VERSION == 1 else ["open", "busy", "closed"])
HIDDEN = Info("shop_hidden", "In a registry of its own.", registry=CollectorRegistry())
HIDDEN.info({"seen": "yes"})

QUEUE: list[int] = [1, 2, 3]
DEPTH = Gauge("shop_depth", "Length of a queue.", multiprocess_mode="livesum")
DEPTH.set_function(lambda: len(QUEUE))
BROKEN = Gauge("shop_broken", "Raises.")
BROKEN.set_function(lambda: 1 / 0)

Latency: Any
if VERSION == 1:
    CHANGED: Any = Counter("shop_changed", "A counter at first.", ["a"])
    LATENCY = Histogram("shop_latency", "Old text.", buckets=(1, 2, 5))
else:
    CHANGED = Gauge("shop_changed", "A gauge now.", ["b"], multiprocess_mode="sum")
    LATENCY = Histogram("shop_latency", "New text.", buckets=(1, 3, 10))


class Stock:
    """A collector of the application's own."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Tell what is in stock."""
        yield GaugeMetricFamily("shop_stock", "In stock.", value=5)


REGISTRY.register(Stock())


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Do what the path names."""
    path = environ["PATH_INFO"]
    if path == "/close":
        MODE.state("closed")
    if path == "/open":
        MODE.state("open")
    if path == "/observe":
        LATENCY.observe(1.5)
        CHANGED.labels("x").inc()
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
