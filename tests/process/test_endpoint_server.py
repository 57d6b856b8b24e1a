"""The metrics endpoint as good clients see it."""

from __future__ import annotations

import gzip
import threading
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from promgun.endpoint.limits import Limits
from tests.support.endpoint_server import PATIENT, PROMPT, Endpoint, converse, families, read_all
from tests.support.http_client import Connection, Request, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client.core import Metric

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PATHS = ("/", "/status.json", "/metrics", "/-/healthy", "/-/ready")


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    """Run one endpoint for all tests that only ask."""
    with Endpoint() as endpoint:
        yield endpoint


@pytest.mark.parametrize("path", PATHS)
def test_each_known_path_answers_get_and_head_alike(server: Endpoint, path: str) -> None:
    got = send(server.address, path=path)
    head = send(server.address, "HEAD", path)
    assert (got.status, head.status) == (200, 200)
    assert int(head.headers["content-length"]) == len(got.body) > 0
    same = {"content-type", "content-length", "vary", "cache-control", "x-content-type-options"}
    assert {name: got.headers.get(name) for name in same} == {name: head.headers.get(name) for name in same}


def test_head_sends_no_body(server: Endpoint) -> None:
    answer = converse(server.address, b"HEAD /metrics HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")


def test_landing_page_is_html_that_links_to_the_others(server: Endpoint) -> None:
    page = send(server.address)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert all(f'href="{path[1:]}"' in page.text for path in PATHS[1:])


@pytest.mark.parametrize(
    "path", ["/metrics/", "//metrics", "/Metrics", "/etc/passwd", "/-/", "/%6detrics", "/favicon.ico"]
)
def test_other_paths_are_not_found(server: Endpoint, path: str) -> None:
    answer = send(server.address, path=path)
    assert (answer.status, answer.text) == (404, "404 Not Found\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "PRI"])
def test_other_methods_are_not_allowed(server: Endpoint, method: str) -> None:
    answer = send(server.address, method, "/metrics")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_text_is_what_prometheus_client_reads_back(server: Endpoint) -> None:
    answer = send(server.address, path="/metrics")
    assert answer.headers["content-type"] == TEXT
    assert [family.name for family in parse_text(answer.text)] == ["apples", "pears"]


# As Prometheus 2.42 sends it, and as prometheus.io/docs/instrumenting/content_negotiation gives it for 3.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize("accept", [PROMETHEUS_2, PROMETHEUS_3])
def test_prometheus_gets_openmetrics(server: Endpoint, accept: str) -> None:
    answer = send(server.address, path="/metrics", headers=[("Accept", accept)])
    assert answer.headers["content-type"] == OPENMETRICS
    assert [family.name for family in parse_openmetrics(answer.text)] == ["apples", "pears"]  # type: ignore[no-untyped-call]
    assert answer.text.endswith("# EOF\n")


def test_gzip_holds_the_same_page(server: Endpoint) -> None:
    plain = send(server.address, path="/metrics")
    packed = send(server.address, path="/metrics", headers=[("Accept-Encoding", "deflate, gzip")])
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept, Accept-Encoding"


def test_header_lines_that_form_one_list_are_joined(server: Endpoint) -> None:
    headers = [("Accept-Encoding", "br"), ("Accept-Encoding", "gzip")]
    assert send(server.address, path="/metrics", headers=headers).headers["content-encoding"] == "gzip"


def test_names_are_filtered(server: Endpoint) -> None:
    def names(query: str) -> list[str]:
        return [family.name for family in parse_text(send(server.address, path=f"/metrics?{query}").text)]

    assert names("name[]=pears") == ["pears"]
    assert names("name%5B%5D=apples_total&x=1") == ["apples"]
    assert names("name[]=apples&name[]=pears") == ["apples", "pears"]
    assert names("name[]=none") == []
    assert names("name=pears") == ["apples", "pears"]


def test_too_many_names_are_a_bad_request(server: Endpoint) -> None:
    query = "&".join(f"name[]=n{number}" for number in range(65))
    assert send(server.address, path=f"/metrics?{query}").status == 400


def test_http_1_0_gets_an_answer_that_ends_the_connection(server: Endpoint) -> None:
    answer = converse(server.address, b"GET /metrics HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"pears 4.0\n")


def test_keep_alive_answers_again_and_again(server: Endpoint) -> None:
    with Connection(server.address) as connection:
        for path in PATHS * 3:
            answer = connection.request(Request(path), keepalive=True)
            assert (answer.status, answer.keeps_alive) == (200, True)
        assert not connection.request(Request("/metrics")).keeps_alive
        assert read_all(connection.socket) == b""


def test_pipelined_requests_are_answered_in_order(server: Endpoint) -> None:
    paths = [*PATHS, "/none", *PATHS] * 20
    methods = ["GET", "HEAD"] * (len(paths) // 2)
    requests = [Request(path, method) for path, method in zip(paths, methods, strict=True)]
    with Connection(server.address) as connection:
        connection.socket.sendall(b"".join(request.encode("1.1", keepalive=True) for request in requests))
        answers = [connection.read_response(request.method) for request in requests]
    assert [answer.status for answer in answers] == [404 if path == "/none" else 200 for path in paths]


@pytest.mark.parametrize("target", ["http://localhost/metrics", "HTTP://u:p@127.0.0.1:1/metrics?x"])
def test_absolute_targets_are_taken_by_their_path(server: Endpoint, target: str) -> None:
    assert b"pears 4.0" in send(server.address, path=target).body


def test_client_that_ends_its_direction_gets_its_answer(server: Endpoint) -> None:
    with Connection(server.address) as connection:
        connection.socket.sendall(Request("/metrics").encode("1.1", keepalive=True))
        connection.socket.shutdown(1)
        assert read_all(connection.socket).endswith(b"pears 4.0\n")


def test_unix_socket(tmp_path: Path) -> None:
    with Endpoint(bind_to=f"unix:{tmp_path}/s") as server:
        assert send(server.address, path="/metrics").status == 200


@pytest.mark.parametrize(("path", "role"), [("/-/healthy", "healthy"), ("/-/ready", "ready")])
def test_probes_say_503_when_it_is_not_so(path: str, role: str) -> None:
    state = {"healthy": True, "ready": True}
    with Endpoint(healthy=lambda: state["healthy"], ready=lambda: state["ready"]) as server:
        assert send(server.address, path=path).status == 200
        state[role] = False
        answer = send(server.address, path=path)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_every_answer_may_not_be_kept_or_guessed_at(server: Endpoint) -> None:
    for path in (*PATHS, "/none"):
        headers = send(server.address, path=path).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert headers["date"].endswith("GMT")


def test_stop_gives_the_answer_at_hand_and_closes_the_rest() -> None:
    running = threading.Event()

    def collect() -> list[Metric]:
        running.set()
        time.sleep(0.3)
        return families()

    with (
        Endpoint(collect, limits=PATIENT) as server,
        Connection(server.address) as idle,
        Connection(server.address) as busy,
    ):
        idle.request(Request("/-/ready"), keepalive=True)
        busy.socket.sendall(Request("/metrics").encode("1.1", keepalive=True))
        assert running.wait(60)
        began = time.monotonic()
        server.begin_to_stop()
        assert read_all(idle.socket) == b""
        answer = busy.read_response()
        assert (answer.status, answer.keeps_alive) == (200, False)
        busy.close()
        server.wait()
        assert time.monotonic() - began < PROMPT


def test_stop_does_not_wait_long_for_anybody() -> None:
    running, released = threading.Event(), threading.Event()

    def collect() -> list[Metric]:
        running.set()
        released.wait(60)
        return families()

    with Endpoint(collect, limits=Limits(stop_seconds=0.2)) as server, Connection(server.address) as connection:
        connection.socket.sendall(Request("/metrics").encode("1.1", keepalive=True))
        assert running.wait(60)
        began = time.monotonic()
        server.begin_to_stop()
        server.wait()
        assert time.monotonic() - began < PROMPT
        released.set()
