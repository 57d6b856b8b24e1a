"""An application with metrics of its own, made with prometheus_client as its manual says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram, Summary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ORDERS = Counter("shop_orders", "Orders taken.", ["kind"])
BASKET = Histogram("shop_basket_euros", "Worth of a basket.", buckets=(10, 100))
PAYMENT = Summary("shop_payment_seconds", "Time to pay.")
CARTS = Gauge("shop_carts", "Open carts.", multiprocess_mode="livesum")
PEAK = Gauge("shop_peak", "Most carts ever.", multiprocess_mode="max")


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Take one order of the kind that the path names."""
    ORDERS.labels(kind=environ["PATH_INFO"].strip("/") or "book").inc()
    BASKET.observe(50)
    PAYMENT.observe(0.25)
    CARTS.set(1)
    PEAK.set(7)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
