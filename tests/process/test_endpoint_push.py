"""Pushing a page: what is sent, what is logged, and that nothing can hold it up."""

from __future__ import annotations

import http.server
import logging
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from promgun.config.gateway import Gateway
from promgun.config.push_gateway import validate_push_gateway
from promgun.endpoint.process import EndpointConfig, push_final_page
from promgun.endpoint.push import push

LOG = logging.getLogger("push")
HOST = socket.gethostname()
FAMILIES = [
    CounterMetricFamily("jobs", "Jobs done.", value=3),
    GaugeMetricFamily("gunicorn_up", "1 while the master lives.", value=1),
]


class Gate(http.server.BaseHTTPRequestHandler):
    """Notes what is pushed and answers as its server says."""

    server: Any

    def do_PUT(self) -> None:
        """Answer."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.seen.append((self.path, dict(self.headers), body))
        self.server.answer(self)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


def answer(status: int, body: bytes = b"") -> Callable[[Gate], None]:
    def write(gate: Gate) -> None:
        gate.send_response(status)
        gate.send_header("Content-Length", str(len(body)))
        gate.end_headers()
        gate.wfile.write(body)

    return write


def trickle(gate: Gate) -> None:
    """Answer a byte at a time: no timeout of a socket ends that."""
    for byte in b"HTTP/1.0 200 " + b"O" * 200:
        try:
            gate.wfile.write(bytes([byte]))
        except OSError:
            return
        time.sleep(0.05)


def nonsense(gate: Gate) -> None:
    gate.wfile.write(b"220 mail.example ESMTP\r\n")


@contextmanager
def gateway(reply: Callable[[Gate], None]) -> Iterator[Any]:
    """Run a gateway that answers so; its ``url`` and what it has ``seen``."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    server.daemon_threads = True
    server.seen, server.answer = [], reply
    server.url = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "push")
    return caplog


def test_page_is_put_under_job_and_host(said: pytest.LogCaptureFixture) -> None:
    with gateway(answer(200)) as server:
        assert push(Gateway.at(f"http://{server.url}/base/"), "batch", FAMILIES, LOG)
    ((path, headers, body),) = server.seen
    assert path == f"/base/metrics/job/batch/instance/{HOST}"
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "jobs_total 3.0" in body
    assert "gunicorn_up" not in body
    assert said.messages == [f"Final metrics pushed to http://{server.url}/base/ (job batch, instance {HOST})"]


def test_credentials_are_sent_and_not_logged(said: pytest.LogCaptureFixture) -> None:
    with gateway(answer(401, b"no")) as server:
        assert not push(Gateway.at(f"http://us%40er:p%3Aw@{server.url}"), "batch", FAMILIES, LOG)
    assert server.seen[0][1]["Authorization"] == "Basic " + b64encode(b"us@er:p:w").decode()
    (message,) = said.messages
    assert message == f"The final metrics could not be pushed to http://{server.url}: 401 Unauthorized no"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer(400, b"pushed metrics are invalid\nor inconsistent"), "400 Bad Request pushed metrics are invalid or"),
        (answer(302), "302"),
        (answer(500, b"x" * 10_000), "500"),
        (nonsense, "220 mail.example ESMTP"),
    ],
    ids=["refused", "elsewhere", "broken", "no HTTP"],
)
def test_failure_is_one_line(reply: Callable[[Gate], None], reason: str, said: pytest.LogCaptureFixture) -> None:
    with gateway(reply) as server:
        assert not push(Gateway.at(f"http://{server.url}"), "batch", FAMILIES, LOG)
    (record,) = said.records
    assert record.levelno == logging.ERROR
    assert reason in record.getMessage()
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 400


def test_an_answer_that_trickles_in_is_not_waited_for(said: pytest.LogCaptureFixture) -> None:
    with gateway(trickle) as server:
        start = time.monotonic()
        assert not push(Gateway.at(f"http://{server.url}"), "batch", FAMILIES, LOG, deadline=0.5)
        assert time.monotonic() - start < 30
    assert said.messages[0].endswith("no answer within 0.5 s")


def test_without_the_option_nothing_is_read() -> None:
    cfg = SimpleNamespace(push_gateway=None, push_gateway_password_file=None)
    push_final_page(EndpointConfig(store="", master_pid=0), cfg, None)


@pytest.mark.parametrize(
    ("url", "gate"),
    [
        ("http://a:9091/b", Gateway("http://a:9091/b")),
        ("https://u:p@[::1]:9091", Gateway("https://[::1]:9091", "u", "p")),
        ("http://u@a", Gateway("http://a", "u", "")),
    ],
)
def test_gateway(url: str, gate: Gateway) -> None:
    assert Gateway.at(url) == gate


@pytest.mark.parametrize(
    "url",
    [
        "pushgateway:9091",
        "ftp://a",
        "http://",
        "http://:9091",
        "/metrics",
        "http://[::1",
        "http://user:sec/ret@a",
        "http://user:1/secret@a",
        "http://user:1?secret@a",
        "http://user:secret@a:port",
        "http://user:secret@\u2100",
        "user:secret@a",
    ],
)
def test_url_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL") as caught:
        validate_push_gateway(url)
    assert "sec" not in str(caught.value)


def test_url_that_is_one() -> None:
    assert validate_push_gateway("https://a:9091") == Gateway("https://a:9091")
    assert validate_push_gateway(None) is validate_push_gateway("") is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://a:9091/b", "http://a:9091/b"),
        ("https://u:p@[::1]:9091", "https://u:***@[::1]:9091"),
        ("http://u@a", "http://u@a"),
    ],
)
def test_gateway_is_shown_without_its_password(url: str, shown: str) -> None:
    assert str(Gateway.at(url)) == f"{Gateway.at(url)}" == shown
    assert "'p'" not in repr(Gateway.at(url))
