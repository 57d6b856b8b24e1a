"""The application that is measured, plain and as a user without promgun would measure it.

Nothing here may need promgun: the peers' environments run it as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

BODY = b"Hello, world!\n"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]
#: /201, /404 … answer with that status: the mix of label sets.
MIX_METHODS = ("GET", "POST", "PUT", "DELETE")
MIX_STATUSES = (200, 201, 202, 302, 400, 403, 404, 500, 503)
_LINES = {f"/{status}": f"{status} {HTTPStatus(status).phrase}" for status in MIX_STATUSES}


def plain(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a few bytes."""
    start_response(_LINES.get(environ["PATH_INFO"], "200 OK"), HEADERS)
    return [BODY]


def naive(application: Application = plain) -> Application:
    """Wrap an application as blog posts do: a counter, a histogram of 14 buckets and a gauge of prometheus_client."""
    from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415 - only in servers that measure this way

    requests = Counter("http_requests_total", "Requests.", ["method", "status"])
    seconds = Histogram(
        "http_request_duration_seconds",
        "Time to answer.",
        ["method"],
        buckets=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    )
    running = Gauge("http_requests_in_progress", "Running requests.", multiprocess_mode="livesum")

    def measured(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        statuses = []

        def remember(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            statuses.append(status)
            return start_response(status, headers, *rest)

        running.inc()
        begin = time.perf_counter()
        try:
            return application(environ, remember)
        finally:
            method = environ["REQUEST_METHOD"]
            requests.labels(method, statuses[0].partition(" ")[0]).inc()
            seconds.labels(method).observe(time.perf_counter() - begin)
            running.dec()

    return measured
