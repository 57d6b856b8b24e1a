"""Collectors of an application's own, good ones and others."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric


class Stock:
    """Tells what is in stock, and prints, as applications do."""

    def collect(self) -> Iterator[Metric]:
        """Give two families, one under a name of ours, and one whose sample has the name of another's."""
        print("counting the stock")
        stock = GaugeMetricFamily("shop_stock", "In stock.", labels=["kind"])
        stock.add_metric(['a "book"\n'], 5)
        yield stock
        yield CounterMetricFamily("shop_collector_pid", "Whose.", value=os.getpid())
        yield GaugeMetricFamily("shop_collector_pid_total", "The name of that counter's sample.", value=1)
        yield GaugeMetricFamily("gunicorn_up", "Not ours.", value=7)


class Slow:
    """Hangs while a file is there."""

    def collect(self) -> Iterator[Metric]:
        """Sleep for longer than anybody waits."""
        while Path("hang").exists():
            time.sleep(0.05)
        yield GaugeMetricFamily("shop_slow", "Slow.", value=1)


class Raises:
    """Raises."""

    def collect(self) -> Iterator[Metric]:
        """Raise."""
        raise RuntimeError("no stock")


def no_factory() -> None:
    """Fail to make a collector."""
    raise LookupError("no database")
