"""HTTP/2 in clear text, as Gunicorn serves it on its concurrent workers."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from h2.exceptions import ProtocolError

from tests.support.harness import PromgunProcess
from tests.support.http_client import Address


def get(address: Address, *paths: str) -> list[tuple[int, bytes]]:
    """Send one GET after the other down one connection; return statuses and bodies."""
    answers = []
    assert isinstance(address, tuple)
    with socket.create_connection(address, timeout=60) as sock:
        connection = H2Connection(H2Configuration(client_side=True))
        connection.initiate_connection()
        for path in paths:
            stream = connection.get_next_available_stream_id()
            pseudo = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "test"}
            connection.send_headers(stream, list(pseudo.items()), end_stream=True)
            sock.sendall(connection.data_to_send())
            answers.append(answer(sock, connection, stream))
    return answers


def answer(sock: socket.socket, connection: H2Connection, stream: int) -> tuple[int, bytes]:
    """Return the status and body of one stream."""
    status, body = 0, b""
    while data := sock.recv(1 << 16):
        for event in connection.receive_data(data):
            if isinstance(event, ResponseReceived):
                status = int(dict(event.headers)[b":status"])
            elif isinstance(event, DataReceived):
                body += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, StreamEnded):
                return status, body
        sock.sendall(connection.data_to_send())
    raise AssertionError(f"the connection ended in stream {stream}")


@pytest.mark.parametrize("worker_type", ["gthread", "gevent", "eventlet"])
def test_requests_of_http2_are_counted(worker_type: str) -> None:
    options = ("-k", worker_type, "--threads", "4", "--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge")
    with PromgunProcess(*options, app="probe:app", workers=1) as server:
        for _ in range(2):
            answers = get(server.address, "/ok", "/size/1000", "/fail/ValueError", "/status/404")
            assert [status for status, _ in answers] == [200, 200, 500, 404]
            assert [len(body) for _, body in answers[:2]] == [2, 1000]
        server.expect("gunicorn_requests_total", 8)
        page = server.scrape()
        assert page.by("status", "gunicorn_requests_total") == {"200": 4, "500": 2, "404": 2}
        assert page.by("error_type", "gunicorn_failed_requests_total") == {"ValueError": 2}
        assert page.sum("gunicorn_request_duration_seconds_count") == 8
        if worker_type != "gthread":
            # Gunicorn writes a 500 of HTTP/1 into the connection. A thread's SystemExit ends the worker.
            with suppress(AssertionError, ProtocolError, ConnectionError):
                get(server.address, "/fail/SystemExit")
            server.expect("gunicorn_failed_requests_total", 1, error_type="SystemExit")
            server.expect("gunicorn_worker_requests_in_progress", 0)
            page = server.fresh()
            unanswered = page.sum("gunicorn_requests_unanswered_total")
            assert page.sum("gunicorn_requests_total") + unanswered == 9, page.text
            assert page.sum("gunicorn_invalid_requests_total") == 0
        assert page.sum("gunicorn_response_size_bytes_sum") >= 2004
        assert page.sum("gunicorn_worker_requests_in_progress") == 0
