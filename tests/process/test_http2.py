"""HTTP/2 as Gunicorn serves it: in clear text on its concurrent workers, and behind TLS on its ASGI worker."""

from __future__ import annotations

import http.client
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from h2.exceptions import ProtocolError

from tests.support.certificates import Authority
from tests.support.harness import PromgunProcess
from tests.support.http_client import Address


def get(address: Address, *paths: str) -> list[tuple[int, bytes]]:
    """Send one GET after the other down one connection; return statuses and bodies."""
    assert isinstance(address, tuple)
    with socket.create_connection(address, timeout=60) as sock:
        client = Client(sock)
        return [client.get(path) for path in paths]


class Client:
    """The client's end of a connection of HTTP/2."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._connection = H2Connection(H2Configuration(client_side=True))
        self._connection.initiate_connection()

    def _begin(self, path: str) -> int:
        stream = self._connection.get_next_available_stream_id()
        pseudo = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "test"}
        self._connection.send_headers(stream, list(pseudo.items()), end_stream=True)
        self._sock.sendall(self._connection.data_to_send())
        return stream

    def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and body of the answer to a GET."""
        stream, status, body = self._begin(path), 0, b""
        while data := self._sock.recv(1 << 16):
            for event in self._connection.receive_data(data):
                if isinstance(event, ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, DataReceived):
                    body += event.data
                    self._connection.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, StreamEnded):
                    return status, body
            self._sock.sendall(self._connection.data_to_send())
        raise AssertionError(f"the connection ended in stream {stream}")

    def leave(self, path: str) -> None:
        """Send a GET, and reset its stream at the first bytes of the answer's body."""
        stream = self._begin(path)
        while data := self._sock.recv(1 << 16):
            if any(isinstance(event, DataReceived) for event in self._connection.receive_data(data)):
                self._connection.reset_stream(stream)
                self._sock.sendall(self._connection.data_to_send())
                return
            self._sock.sendall(self._connection.data_to_send())
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


def test_streams_of_asgi_are_counted_as_requests_behind_tls_are(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.sign("server")
    options = ("--certfile", str(certificate.cert), "--keyfile", str(certificate.key), "--http-protocols", "h2,h1")
    with PromgunProcess("-k", "asgi", *options, app="asgi_app:app", workers=1) as server:
        assert isinstance(server.address, tuple)
        context = ssl.create_default_context(cafile=str(authority.cert))
        plain = http.client.HTTPSConnection(*server.address, timeout=30, context=context)
        for _ in range(2):
            plain.request("POST", "/status/201", body=b"abc")
            assert plain.getresponse().read() == b"zzz"
        plain.close()
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(server.address, timeout=30) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as sock,
        ):
            assert sock.selected_alpn_protocol() == "h2"
            client = Client(sock)
            answers = [client.get(path) for path in ("/status/202", "/raw/ok", "/fails", "/nowhere")]
            assert [status for status, _ in answers] == [202, 200, 500, 404]
            client.leave("/events/cut")
            server.expect("gunicorn_client_disconnects_total", 1, phase="response")
            assert client.get("/raw/ok") == (200, b"ok")
        server.expect("gunicorn_worker_requests_in_progress", 0)
        page = server.fresh()
        counted = {tuple(each.labels.values()): each.value for each in page.select("gunicorn_requests_total")}
        assert counted == {
            ("POST", "/status/{status}", "201"): 2,
            ("GET", "/status/{status}", "202"): 1,
            ("GET", "/raw", "200"): 2,
            ("GET", "/fails", "500"): 1,
            ("GET", "", "404"): 1,
            ("GET", "/events/{topic}", "200"): 1,
        }
        assert page.by("error_type", "gunicorn_failed_requests_total") == {"RuntimeError": 1}
        assert page.sum("gunicorn_request_size_bytes_sum") == 6
        assert page.sum("gunicorn_requests_unanswered_total") == 0
