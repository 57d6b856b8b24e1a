"""What clients send is what is counted, on every worker type, exactly."""

from __future__ import annotations

import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
from gunicorn import version_info as GUNICORN_VERSION  # noqa: N812 - a constant of Gunicorn's

from tests.support.counted import Counted
from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import NO_ANSWER, Connection, Request, load, send

pytestmark = pytest.mark.seam

REQUESTS = "gunicorn_requests_total"
UNIQUE_MEMORY = "gunicorn_worker_unique_memory_bytes"
MOST_REQUESTS, MOST_CONNECTIONS = 1_000_000, 20
MIXED = [
    Request("/ok"),
    Request("/status/301"),
    Request("/status/404"),
    Request("/fail/ValueError"),
    Request("/stream/3/100"),
    Request("/echo", "POST", body=b"x" * 1000),
]


def probe(worker_type: str, *args: str, sandbox: Sandbox | None = None, workers: int = 1) -> PromgunProcess:
    """Return a server of the probe application."""
    threads = ("--threads", "4") if worker_type == "gthread" else ()
    return PromgunProcess("-k", worker_type, *threads, *args, app="probe:app", sandbox=sandbox, workers=workers)


@pytest.fixture(scope="module")
def shared_server(worker_type: str) -> Iterator[PromgunProcess]:
    """One worker of each type, for all tests that only send requests."""
    with probe(worker_type) as server:
        yield server


@pytest.fixture
def server(shared_server: PromgunProcess) -> Counted:
    """The shared server, as if nobody had asked it before."""
    return Counted(shared_server)


@pytest.fixture(scope="module")
def shared_pair(worker_type: str) -> Iterator[PromgunProcess]:
    """Two workers of each type, which have all options that say how much they serve."""
    most = ("--max-requests", str(MOST_REQUESTS), "--worker-connections", str(MOST_CONNECTIONS))
    with probe(worker_type, *most, "--metrics-unique-memory", "1", workers=2) as server:
        yield server


@pytest.fixture
def pair(shared_pair: PromgunProcess) -> Counted:
    """The shared pair, as if nobody had asked it before."""
    return Counted(shared_pair)


def url(server: PromgunProcess) -> str:
    """Return where the application is, as programs take it."""
    return server.listening()[-1][0]


def expect_statuses(server: PromgunProcess, statuses: Counter[int]) -> None:
    """Assert that each status was counted as often as clients got it, in every family that counts answers."""
    for status, count in statuses.items():
        server.expect(REQUESTS, count, status=status)
    page = server.fresh()
    assert page.by("status", REQUESTS) == {str(status): count for status, count in statuses.items()}
    for name in ("gunicorn_worker_requests_total", "gunicorn_request_size_bytes_count"):
        assert page.sum(name) == statuses.total()
    assert page.by("status", "gunicorn_request_duration_seconds_count") == page.by("status", REQUESTS)
    assert page.sum("gunicorn_response_size_bytes_count") == statuses.total()
    assert page.sum("gunicorn_worker_requests_in_progress") == 0


def test_each_answer_is_counted_once(pair: Counted) -> None:
    total: Counter[int] = Counter()
    for version, keepalive in (("1.0", False), ("1.0", True), ("1.1", False), ("1.1", True)):
        statuses = load(pair.address, MIXED * 10, concurrency=6, version=version, keepalive=keepalive)
        assert statuses == Counter({200: 30, 301: 10, 404: 10, 500: 10}), (version, keepalive)
        total += statuses
        expect_statuses(pair, total)


def test_odd_requests(server: Counted) -> None:
    for _ in range(3):  # connections without a word are no requests
        Connection(server.address).close()
    for method in ("GET", "POST", "PATCH", "DELETE", "FOOBAR", "BREW"):
        assert send(server.address, method, "/ok").status == 200
    with Connection(server.address) as connection:
        connection.socket.sendall(
            b"PUT /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert connection.read_response().status == 100
        connection.socket.sendall(b"abc")
        assert connection.read_response().text == "3"
    expect_statuses(server, Counter({200: 7}))
    page = server.scrape()
    assert page.by("method", REQUESTS) == {
        "GET": 1,
        "POST": 1,
        "PATCH": 1,
        "DELETE": 1,
        "PUT": 1,
        "_OTHER": 2,
    }
    assert page.sum("gunicorn_invalid_requests_total") == 0
    assert page.sum("gunicorn_client_disconnects_total") == 0


def test_sizes_of_bodies(server: Counted) -> None:
    content = bytes(range(256)) * 4000
    (server.sandbox.directory / "file.bin").write_bytes(content)
    answers = {
        "/size/5000": 5000,
        "/stream/7/100": 700,
        "/written/10": 20,
        "/file/file.bin": len(content),
        "/status/204": 0,
    }
    for path, size in answers.items():
        assert len(send(server.address, path=path).body) == size
    assert send(server.address, path="/file/file.bin").body == content
    assert send(server.address, "HEAD", "/status/200").status == 200
    server.expect("gunicorn_response_size_bytes_sum", sum(answers.values()) + len(content), method="GET")
    server.expect("gunicorn_response_size_bytes_sum", 0, method="HEAD")

    assert send(server.address, "POST", "/echo", body=b"x" * 70_000).text == "70000"
    with Connection(server.address) as connection:
        chunked = Request("/echo", "PUT", chunks=[b"x" * 300, b"x" * 20])
        assert connection.request(chunked).text == "320"
    server.expect("gunicorn_request_size_bytes_sum", 70_000, method="POST")
    server.expect("gunicorn_request_size_bytes_sum", 320, method="PUT")
    server.expect("gunicorn_request_size_bytes_sum", 0, method="GET")


def test_durations_are_what_the_client_waits_and_waiting_takes_no_cpu_time(worker_type: str, server: Counted) -> None:
    send(server.address, path="/sleep/0.3")
    server.expect("gunicorn_request_duration_seconds_count", 1)
    page = server.scrape()
    assert 0.3 <= page.sum("gunicorn_request_duration_seconds_sum") < 2
    assert page.sum("gunicorn_request_duration_seconds_bucket", le="0.25") == 0
    assert page.sum("gunicorn_request_duration_seconds_bucket", le="+Inf") == 1
    send(server.address, path="/burn/0.1")
    server.expect("gunicorn_request_duration_seconds_count", 2)
    spent = server.scrape().value("gunicorn_request_cpu_seconds_total", route="")
    if worker_type in {"sync", "gthread"}:
        assert spent is not None
        assert 0.1 <= spent < 0.3
    else:
        # There a thread serves several requests at once.
        assert spent is None
    page = server.scrape()
    if worker_type not in {"sync", "gthread"}:
        send(server.address, path="/burn/0.4")
        server.expect("gunicorn_request_duration_seconds_count", 3)
        page = server.scrape()
        # Of the time for which it blocks its hub, the first tenth of a second at most is not seen.
        assert 0.25 <= page.sum("gunicorn_worker_loop_lag_seconds") < 2
        assert page.sum("gunicorn_worker_loop_late_seconds_total") >= 0.25
    else:
        assert page.select("gunicorn_worker_loop_lag_seconds") == []


def test_the_first_byte_of_a_stream_is_earlier_than_its_end(server: Counted) -> None:
    for path in ("/paused/write/0.3", "/paused/pieces/0.3", "/ok"):
        send(server.address, path=path)
    server.expect("gunicorn_response_start_seconds_count", 3)
    server.expect("gunicorn_response_start_seconds_bucket", 3, le="0.25")
    page = server.scrape()
    assert page.sum("gunicorn_request_duration_seconds_count") == 3
    assert page.sum("gunicorn_request_duration_seconds_bucket", le="0.25") == 1
    assert page.sum("gunicorn_request_duration_seconds_sum") >= 0.6


def test_failures_are_counted_by_class(server: Counted) -> None:
    paths = ["/fail/ValueError", "/fail/CustomError", "/no-such-route", "/failing_stream/CustomError"]
    statuses = load(server.address, [Request(path) for path in paths * 3], keepalive=False)
    # Half an answer is none for the client, and 200 for whoever sent its head.
    assert statuses == Counter({500: 9, NO_ANSWER: 3})
    server.expect("gunicorn_failed_requests_total", 12)
    expect_statuses(server, Counter({500: 9, 200: 3}))
    page = server.scrape()
    failed = page.by("error_type", "gunicorn_failed_requests_total")
    assert failed == {"ValueError": 3, "CustomError": 6, "KeyError": 3}
    assert page.sum("gunicorn_client_disconnects_total") == 0
    assert page.sum("gunicorn_invalid_requests_total") == 0


def test_broken_pipe_of_the_application_is_its_failure(server: Counted) -> None:
    # Gunicorn takes it for a client that left and answers nothing; there was one, and it waited.
    assert load(server.address, [Request("/fail/BrokenPipeError")]) == Counter({NO_ANSWER: 1})
    server.expect("gunicorn_failed_requests_total", 1, error_type="BrokenPipeError")
    assert send(server.address, path="/ok").status == 200
    expect_statuses(server, Counter({200: 1}))
    assert server.scrape().sum("gunicorn_client_disconnects_total") == 0


@pytest.mark.parametrize("worker_type", ["gthread", "gevent"])
def test_a_bad_chunk_behind_an_answer_is_answered_and_counted(worker_type: str) -> None:
    """The application left the body unread: Gunicorn looks for its end before the connection's next request."""
    with probe(worker_type) as server, Connection(server.address) as client:
        connection = client.socket
        head = b"POST /ok HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"5\r\nhello\r\nZZZ\r\n")
        answer = b""
        while data := connection.recv(65536):
            answer += data
        statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
        if statuses == [b"200"] and GUNICORN_VERSION < (26,):
            # gunicorn 25.3 closes the connection without a word.
            expect_statuses(server, Counter({200: 1}))
            return
        assert statuses == [b"200", b"400"]
        expect_statuses(server, Counter({200: 1, 400: 1}))
        server.expect("gunicorn_invalid_requests_total", 1)
        page = server.scrape()
        assert page.by("error_type", "gunicorn_invalid_requests_total") == {"InvalidChunkSize": 1}
        assert page.sum("gunicorn_failed_requests_total") == 0


def test_invalid_requests_never_reach_the_application(server: Counted) -> None:
    invalid = [
        b"NOT A REQUEST\r\n\r\n",
        b"GET /ok HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"GET /ok HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: many\r\n\r\n",
    ]
    statuses: Counter[int] = Counter()
    for count, raw in enumerate(invalid, 1):
        with Connection(server.address) as connection:
            connection.socket.sendall(raw)
            statuses[connection.read_response().status] += 1
        server.expect("gunicorn_invalid_requests_total", count)
    assert all(400 <= status < 600 for status in statuses)
    expect_statuses(server, statuses)
    page = server.scrape()
    assert len(page.by("error_type", "gunicorn_invalid_requests_total")) >= 4  # how many classes, Gunicorn decides
    assert page.sum("gunicorn_failed_requests_total") == 0
    assert page.sum("gunicorn_client_disconnects_total") == 0


def test_client_that_leaves_within_its_request(server: Counted) -> None:
    with Connection(server.address) as connection:
        connection.socket.sendall(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nonly this")
    server.expect("gunicorn_client_disconnects_total", 1, phase="request")
    assert send(server.address, path="/ok").status == 200
    server.expect("gunicorn_worker_requests_in_progress", 0)
    page = server.scrape()
    assert page.sum("gunicorn_client_disconnects_total") == 1
    assert page.sum("gunicorn_failed_requests_total") == 0
    assert page.sum(REQUESTS) in {1, 2}  # whether the first was answered depends on when the client was missed


def test_client_that_leaves_within_its_request_may_be_answered_by_the_worker(server: Counted) -> None:
    with Connection(server.address) as connection:
        connection.socket.sendall(b"POST /whole HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nonly this")
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.read_response().status == 500
    server.expect("gunicorn_client_disconnects_total", 1, phase="request")
    expect_statuses(server, Counter({500: 1}))
    page = server.scrape()
    assert page.sum("gunicorn_client_disconnects_total") == 1
    assert page.by("error_type", "gunicorn_failed_requests_total") == {"ValueError": 1}


def test_client_that_leaves_within_the_answer(server: Counted) -> None:
    connection = Connection(server.address)
    connection.socket.sendall(Request("/endless").encode("1.1", keepalive=False))
    assert connection.socket.recv(65_536)
    connection.reset()
    server.expect("gunicorn_client_disconnects_total", 1, phase="response")
    server.expect(REQUESTS, 1, status=200)
    assert send(server.address, path="/ok").status == 200
    server.expect(REQUESTS, 2)
    page = server.scrape()
    assert page.sum("gunicorn_failed_requests_total") == 0
    assert page.sum("gunicorn_client_disconnects_total") == 1
    assert page.sum("gunicorn_worker_requests_in_progress") == 0


def test_running_requests_are_seen_while_they_run(worker_type: str, server: Counted) -> None:
    at_once = 1 if worker_type == "sync" else 3
    connections = [Connection(server.address) for _ in range(at_once)]
    for number, connection in enumerate(connections):
        connection.socket.sendall(Request(f"/gate/running-{number}").encode("1.1", keepalive=False))
    server.expect("gunicorn_worker_requests_in_progress", at_once)
    assert server.scrape().by("state", "gunicorn_worker_state") == {"busy": 1}
    assert server.scrape().sum(REQUESTS) == 0

    for number, connection in enumerate(connections):
        server.sandbox.write(f"running-{number}", "")
        assert connection.read_response().status == 200
        connection.close()
    server.expect(REQUESTS, at_once)
    wait_until(lambda: server.scrape().sum("gunicorn_worker_requests_in_progress") == 0)
    wait_until(lambda: server.scrape().by("state", "gunicorn_worker_state") == {"idle": 1})


def test_capacity_is_what_a_worker_serves_at_once(
    worker_type: str, shared_server: PromgunProcess, shared_pair: PromgunProcess
) -> None:
    page = shared_pair.scrape()
    capacity = {"sync": 1, "gthread": 4}.get(worker_type, MOST_CONNECTIONS)
    assert page.by("worker_id", "gunicorn_worker_capacity") == {"1": capacity, "2": capacity}
    assert len(page.select("gunicorn_worker_requests_left")) == 2
    assert not shared_server.scrape().select("gunicorn_worker_requests_left")


def test_figures_of_each_worker(worker_type: str, shared_pair: PromgunProcess, pair: Counted) -> None:
    load(pair.address, 8, path="/ok")
    pair.expect("gunicorn_worker_requests_total", 8)
    page = wait_until(lambda: page if len((page := shared_pair.fresh()).select(UNIQUE_MEMORY)) == 2 else None)
    per_worker = (
        "gunicorn_worker_uptime_seconds",
        "gunicorn_worker_resident_memory_bytes",
        UNIQUE_MEMORY,
        "gunicorn_worker_open_fds",
        "gunicorn_worker_threads",
        "gunicorn_worker_cpu_seconds_total",
        "gunicorn_worker_context_switches_total",
    )
    for name in per_worker:
        assert {sample.labels["worker_id"] for sample in page.select(name)} == {"1", "2"}, name
    left = page.by("worker_id", "gunicorn_worker_requests_left")
    assert sum(left.values()) == 2 * MOST_REQUESTS - page.sum("gunicorn_worker_requests_total")
    memory = page.by("worker_id", "gunicorn_worker_resident_memory_bytes")
    assert all(5e6 < size < 5e8 for size in memory.values())
    unique = page.by("worker_id", UNIQUE_MEMORY)
    assert all(1e5 < unique[number] <= size for number, size in memory.items())
    assert page.value("gunicorn_info", worker_type=worker_type) == 1
    assert page.value("gunicorn_up") == 1


def test_every_series_with_known_labels_is_there_from_the_start() -> None:
    with PromgunProcess() as server:
        page = server.scrape()
        assert {sample.labels["phase"] for sample in page.select("gunicorn_client_disconnects_total")} == {
            "request",
            "response",
        }
        assert len(page.select("gunicorn_master_signals_total")) == 9
        assert len(page.select("promgun_store_errors_total")) == 4
        assert {sample.labels["level"] for sample in page.select("gunicorn_log_messages_total")} == {
            "debug",
            "info",
            "warning",
            "error",
            "critical",
        }


@pytest.mark.needs("ab")
def test_requests_of_ab_are_counted_exactly(pair: Counted) -> None:
    for count, options in enumerate(([], ["-k"]), 1):
        command = ["ab", "-q", "-n", "400", "-c", "8", *options, f"{url(pair)}/ok"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "Failed requests:        0" in ran.stdout
        expect_statuses(pair, Counter({200: 400 * count}))


@pytest.mark.needs("wrk")
def test_requests_of_wrk_are_counted(pair: Counted) -> None:
    command = ["wrk", "-d", "1", "-t", "1", "-c", "8", f"{url(pair)}/ok"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (answered,) = [int(line.split()[0]) for line in ran.stdout.splitlines() if "requests in" in line]
    wait_until(lambda: pair.scrape().sum("gunicorn_worker_requests_in_progress") == 0)
    page = pair.fresh()
    # wrk leaves when its time is over: what it had sent on each connection was served and not read.
    assert answered <= page.sum(REQUESTS) <= answered + 8
    assert page.sum(REQUESTS, status=200) == page.sum(REQUESTS)
    assert page.sum("gunicorn_worker_requests_total") == page.sum(REQUESTS)


def test_an_odd_environ_costs_no_request(worker_type: str) -> None:
    config = (
        "def post_worker_init(worker):\n"
        "    serve = worker.wsgi\n"
        "    def odd(environ, start_response):\n"
        "        environ['HTTP_X_REQUEST_ID'] = {'/ok': 5, '/status/204': '\\udcff'}[environ['PATH_INFO']]\n"
        "        return serve(environ, start_response)\n"
        "    worker.wsgi = odd\n"
    )
    with Sandbox() as sandbox:
        sandbox.write("odd.py", config)
        with probe(worker_type, "-c", "odd.py", sandbox=sandbox) as server:
            assert [send(server.address, "GET", path).status for path in ("/ok", "/status/204")] == [200, 204]
            expect_statuses(server, Counter({200: 1, 204: 1}))
