"""The endpoint over TLS: what good clients get, what others get, and what stalled ones cost."""

from __future__ import annotations

import os
import socket
import ssl
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from promgun.config.web_options import WebOptions
from promgun.endpoint.limits import Limits
from tests.support.certificates import Authority
from tests.support.endpoint_server import PROMPT, Endpoint, converse, families, huge_families, read_all
from tests.support.http_client import Connection, Request, send
from tests.support.sandbox import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.certificates import Certificate
    from tests.support.http_client import Address, Response

pytestmark = pytest.mark.needs("openssl")


class Place:
    """A folder with an authority, a certificate of the server's and a web configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.server = self.authority.sign("server")
        self.web = folder / "web.yml"

    def write(self, *lines: str) -> WebOptions:
        """Write ``tls_server_config`` with the certificate and these further lines."""
        config = ["cert_file: server.pem", "key_file: server.key", *lines]
        self.web.write_text("tls_server_config:\n" + "".join(f"  {line}\n" for line in config))
        return WebOptions(web_config=str(self.web))

    def context(self, client: Certificate | None = None) -> ssl.SSLContext:
        """Return a client's context, with its certificate if it has one."""
        context = ssl.create_default_context(cafile=str(self.authority.cert))
        if client is not None:
            context.load_cert_chain(client.cert, client.key)
        return context


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class TlsConnection(Connection):
    """A connection that begins with a handshake."""

    def __init__(self, address: Address, context: ssl.SSLContext) -> None:
        super().__init__(address)
        self.plain = self.socket
        self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self._reader = self.socket.makefile("rb")


def ask(address: Address, context: ssl.SSLContext, path: str = "/metrics") -> Response:
    """Ask over TLS."""
    with TlsConnection(address, context) as connection:
        return connection.request(Request(path))


def counted(server: Endpoint, reason: str) -> float:
    """Return how many requests or connections were refused for that reason."""
    samples = server.endpoint.counts.families({})[0].samples
    return next(sample.value for sample in samples if sample.labels["reason"] == reason)


def reloads(server: Endpoint) -> dict[str, float]:
    """Return how often the web configuration was read again, by result."""
    return {sample.labels["result"]: sample.value for sample in server.endpoint.counts.families({})[1].samples}


def test_answers_over_tls_are_whole(place: Place) -> None:
    with Endpoint(huge_families, web=place.write()) as server, TlsConnection(server.address, place.context()) as client:
        for path in ("/metrics", "/", "/-/healthy", "/none", "/metrics"):
            answer = client.request(Request(path), keepalive=True)
            assert answer.keeps_alive
            assert len(answer.body) == int(answer.headers["content-length"])
        assert len(answer.body) > 20_000_000
        assert client.socket.version() == "TLSv1.3"  # type: ignore[attr-defined]
        assert not client.request(Request("/metrics")).keeps_alive
        # close_notify, not a bare end: nobody cut the answer short.
        assert read_all(client.socket) == b""
        assert server.endpoint.faults.seen == {}


def test_pipelined_requests_over_tls_are_answered_in_order(place: Place) -> None:
    paths = ["/metrics", "/none", "/-/ready"] * 30
    with Endpoint(web=place.write()) as server, TlsConnection(server.address, place.context()) as client:
        client.socket.sendall(b"".join(Request(path).encode("1.1", keepalive=True) for path in paths))
        assert [client.read_response().status for _ in paths] == [404 if path == "/none" else 200 for path in paths]


def test_certificate_and_key_from_flags(place: Place) -> None:
    web = WebOptions(certfile=str(place.server.cert), keyfile=str(place.server.key))
    with Endpoint(web=web) as server:
        assert ask(server.address, place.context()).status == 200


def test_pem_text_within_the_file(place: Place) -> None:
    def block(path: Path) -> str:
        return "".join(f"    {line}\n" for line in path.read_text().splitlines())

    place.web.write_text(
        f"tls_server_config:\n  cert: |\n{block(place.server.cert)}  key: |\n{block(place.server.key)}"
        f"  client_ca: |\n{block(place.authority.cert)}  client_auth_type: RequireAndVerifyClientCert\n"
    )
    with Endpoint(web=WebOptions(web_config=str(place.web))) as server:
        assert ask(server.address, place.context(place.authority.sign("client"))).status == 200
        assert not answers(server.address, place.context())


def test_unix_sockets_stay_plain(place: Place) -> None:
    with Endpoint(bind_to=f"unix:{place.folder}/s", web=place.write()) as server:
        assert send(server.address, path="/metrics").status == 200


def test_plain_http_is_told_so(place: Place) -> None:
    with Endpoint(web=place.write()) as server:
        answer = converse(server.address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"this address wants TLS")
        assert ask(server.address, place.context()).status == 200
        assert counted(server, "tls_handshake") == 1


def test_versions_and_ciphers(place: Place) -> None:
    def agreed(minimum: str, maximum: str, *more: str) -> tuple[str | None, str]:
        web = place.write(f"min_version: {minimum}", f"max_version: {maximum}", *more)
        with Endpoint(web=web) as server, TlsConnection(server.address, place.context()) as client:
            sock = client.socket
            assert isinstance(sock, ssl.SSLSocket)
            return sock.version(), (sock.cipher() or ("", "", 0))[0]

    assert agreed("TLS13", "TLS13")[0] == "TLSv1.3"
    suites = "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]"
    assert agreed("TLS12", "TLS12", suites, "curve_preferences: [CurveP384]") == (
        "TLSv1.2",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    )
    old = place.context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with Endpoint(web=place.write("min_version: TLS13")) as server:
        assert not answers(server.address, old)


def answers(address: Address, context: ssl.SSLContext) -> bool:
    """Whether a client is answered; in TLS 1.3 it learns after its own handshake that its certificate will not do."""
    with suppress(OSError):
        return ask(address, context).status == 200
    return False


MUTUAL = ("client_ca_file: ca.pem", "client_auth_type: RequireAndVerifyClientCert")


def test_client_certificates(place: Place) -> None:
    stranger = Authority(place.folder, "elsewhere").sign("stranger")
    with Endpoint(web=place.write(*MUTUAL)) as server:
        assert answers(server.address, place.context(place.authority.sign("prometheus")))
        assert not answers(server.address, place.context())
        assert not answers(server.address, place.context(stranger))
        wait_until(lambda: counted(server, "tls_handshake") == 2)


def test_client_certificates_if_given(place: Place) -> None:
    stranger = Authority(place.folder, "elsewhere").sign("stranger")
    optional = ("client_ca_file: ca.pem", "client_auth_type: VerifyClientCertIfGiven")
    with Endpoint(web=place.write(*optional)) as server:
        assert answers(server.address, place.context(place.authority.sign("prometheus")))
        assert answers(server.address, place.context())
        assert not answers(server.address, place.context(stranger))


def test_allowed_names_of_client_certificates(place: Place) -> None:
    allowed = 'client_allowed_sans: ["prometheus.example", "10.0.0.7", "ops@example.org", "spiffe://x/prometheus"]'
    good = ("DNS:prometheus.example", "IP:10.0.0.7", "email:ops@example.org", "URI:spiffe://x/prometheus")
    bad = ("DNS:other.example", "DNS:x.prometheus.example", "IP:10.0.0.8")
    with Endpoint(web=place.write(*MUTUAL, allowed)) as server:
        found = {
            name: ask(server.address, place.context(place.authority.sign(f"c{number}", name))).status
            for number, name in enumerate((*good, *bad))
        }
        assert found == {**dict.fromkeys(good, 200), **dict.fromkeys(bad, 403)}
        assert counted(server, "client_certificate") == 3
        assert ask(server.address, place.context(place.authority.sign("x", bad[0])), "/-/healthy").status == 403


def test_stalled_handshakes_hold_nobody_up(place: Place) -> None:
    limits = Limits(connections=60, grace_seconds=0.01, head_seconds=1)
    with Endpoint(web=place.write(), limits=limits) as server, ExitStack() as clients:
        hello = client_hello(place.context())
        for number in range(100):
            client = clients.enter_context(Connection(server.address, "127.0.0.2"))
            # Nothing at all, half a hello, or a whole one without what follows.
            client.socket.sendall(hello[: (0, 40, len(hello))[number % 3]])
        began = time.monotonic()
        assert ask(server.address, place.context()).status == 200
        assert time.monotonic() - began < PROMPT
        # They are gone at their deadline, however little they said.
        with Connection(server.address) as silent:
            assert read_all(silent.socket) == b""
        assert ask(server.address, place.context()).status == 200
        assert server.endpoint.faults.seen == {}


def client_hello(context: ssl.SSLContext) -> bytes:
    """Return the first flight of a handshake."""
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(received, to_send, server_hostname="127.0.0.1").do_handshake()
    return to_send.read()


def test_garbage_within_tls_ends_the_connection_alone(place: Place) -> None:
    with Endpoint(web=place.write()) as server:
        for garbage in (b"\x17\x03\x03\x00\x10" + bytes(16), b"x" * 5000, b"\x15\x03\x03\x00\x02\x02\x28"):
            with TlsConnection(server.address, place.context()) as client, suppress(OSError):
                os.write(client.socket.fileno(), garbage)
                read_all(client.socket)
        assert ask(server.address, place.context()).status == 200
        assert server.endpoint.faults.seen == {}


def test_client_that_does_not_read_over_tls_is_dropped(place: Place) -> None:
    limits = Limits(write_seconds=3, linger_seconds=0.3)
    with (
        Endpoint(huge_families, web=place.write(), limits=limits) as server,
        TlsConnection(server.address, place.context()) as client,
    ):
        client.socket.sendall(Request("/metrics").encode("1.1", keepalive=True))
        # The server closes before the client has read: the connection leaves ESTABLISHED (1, tcp(7) and TCP_INFO).
        wait_until(
            lambda: client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\x01", message="dropped"
        )
        received = 0
        with suppress(OSError):  # an end without close_notify, or a reset
            while data := client.socket.recv(1_000_000):
                received += len(data)
        assert received < 20_000_000
        assert len(ask(server.address, place.context()).body) > 20_000_000


def test_a_new_certificate_is_taken_without_a_restart(place: Place) -> None:
    with Endpoint(web=place.write()) as server:
        with TlsConnection(server.address, place.context()) as old:
            assert old.request(Request("/metrics"), keepalive=True).status == 200
            before = serial(server.address, place)
            place.authority.sign("server")
            wait_until(lambda: serial(server.address, place) != before)
            # What was made under the old one ends.
            assert read_all(old.socket) == b""
        assert reloads(server) == {"ok": 1, "failed": 0}


def serial(address: Address, place: Place) -> str:
    """Return the serial number of the certificate that is shown."""
    with TlsConnection(address, place.context()) as client:
        certificate = client.socket.getpeercert()  # type: ignore[attr-defined]
        return str(certificate["serialNumber"])


def test_a_bad_file_keeps_the_last_good_one(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    with Endpoint(web=place.write()) as server:
        assert ask(server.address, place.context()).status == 200
        place.web.write_text("tls_server_config: {cert_file: server.pem, key_file: absent.key}\n")
        wait_until(lambda: reloads(server)["failed"])
        assert "absent.key cannot be read: No such file or directory. Check the path" in caplog.text
        assert ask(server.address, place.context()).status == 200
        # What it names may come to be without a change of the file itself.
        os.replace(place.server.key, place.folder / "absent.key")
        wait_until(lambda: reloads(server)["ok"])
        assert ask(server.address, place.context()).status == 200
        place.web.unlink()
        wait_until(lambda: reloads(server)["failed"] == 2)
        assert ask(server.address, place.context()).status == 200
    assert reloads(server) == {"ok": 1, "failed": 2}
    assert caplog.text.count("the last good one stays in use") == 2


def test_from_tls_to_passwords_alone_and_back(place: Place) -> None:
    with Endpoint(web=place.write()) as server:
        assert ask(server.address, place.context()).status == 200
        place.web.write_text("rate_limit: {interval: 1s, burst: 1000}\n")
        wait_until(lambda: plainly(server.address))
        place.write()
        wait_until(lambda: answers(server.address, place.context()))
        assert not plainly(server.address)


def plainly(address: Address) -> bool:
    """Whether a client is answered without TLS."""
    with suppress(OSError, ValueError, IndexError):
        return send(address, path="/metrics").status == 200
    return False


def test_a_process_that_starts_with_a_bad_file_refuses_until_it_is_good(place: Place) -> None:
    place.web.write_text("tls_server_confg: {}\n")
    with Endpoint(families, web=WebOptions(web_config=str(place.web))) as server:
        assert send(server.address, path="/metrics").status == 503
        assert send(server.address, path="/-/healthy").status == 200
        place.write()
        wait_until(lambda: answers(server.address, place.context()))


def test_listeners_beyond_loopback_without_protection_are_warned_of(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with Endpoint(bind_to="0.0.0.0:0"):
        wait_until(lambda: "is open to everybody who reaches it" in caplog.text)
    caplog.clear()
    with Endpoint(bind_to="0.0.0.0:0", web=place.write()) as server:
        assert ask(("127.0.0.1", server.address[1]), place.context()).status == 200  # type: ignore[arg-type]
    with Endpoint() as server:
        assert send(server.address).status == 200
    assert caplog.text == ""
