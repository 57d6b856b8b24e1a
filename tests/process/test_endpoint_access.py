"""Who may ask the endpoint what, and what every answer says to browsers."""

from __future__ import annotations

import base64
import os
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import bcrypt
import pytest

from promgun.config.web_options import WebOptions
from promgun.endpoint import authentication
from promgun.endpoint.limits import Limits
from tests.support.endpoint_server import PROMPT, Endpoint, converse, families
from tests.support.http_client import Connection, Request, send
from tests.support.sandbox import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.http_client import Address, Response

PATHS = ("/", "/status.json", "/metrics", "/-/healthy", "/-/ready", "/none")


def asked(address: Address, host: str, path: str = "/metrics") -> int:
    """Ask by a host name; returns the status."""
    answer = converse(address, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    return int(answer.split(b" ")[1])


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    """Run one endpoint for all tests that only ask."""
    with Endpoint(web=WebOptions(allowed_hosts=("metrics.example",))) as endpoint:
        yield endpoint


@pytest.mark.parametrize("path", PATHS)
def test_a_foreign_host_name_is_refused_on_loopback(server: Endpoint, path: str) -> None:
    assert asked(server.address, "evil.example", path) == 421


def test_foreign_names_and_ours() -> None:
    ours = (
        *("127.0.0.1", "127.0.0.1:9164", "localhost", "LOCALHOST:1", "localhost.", "app.localhost", "[::1]:9164"),
        *("[::1]", "10.0.0.7:80", "metrics.example", "Metrics.Example.:9164", ""),
    )
    foreign = (
        *("evil.example", "evil.example:9164", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost"),
        "127.0.0.1%evil.example",
    )
    with Endpoint(web=WebOptions(allowed_hosts=("metrics.example",))) as server:
        found = {name: asked(server.address, name) for name in (*ours, *foreign)}
    assert found == {**dict.fromkeys(ours, 200), **dict.fromkeys(foreign, 421)}


def test_the_target_in_absolute_form_counts_too(server: Endpoint) -> None:
    assert send(server.address, path="http://evil.example/metrics").status == 421
    assert send(server.address, path="http://u:p@metrics.example:80/metrics").status == 200


def test_unix_sockets_take_any_name(tmp_path: Path) -> None:
    with Endpoint(bind_to=f"unix:{tmp_path}/s") as server:
        assert asked(server.address, "evil.example") == 200


@pytest.mark.skipif(not os.path.exists("/proc/net/fib_trie"), reason="asks Linux for an address that is no loopback")
def test_other_addresses_take_any_name() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has a loopback address only")
        host = probe.getsockname()[0]
    with Endpoint(bind_to=f"{host}:0") as server:
        assert asked(server.address, "evil.example") == 200


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("cross-site", "no-cors", 403),
        ("cross-site", "cors", 403),
        ("cross-site", "navigate", 200),
        ("same-origin", "cors", 200),
        ("same-site", "no-cors", 200),
        ("none", "navigate", 200),
    ],
)
def test_pages_of_other_sites_may_only_lead_here(server: Endpoint, site: str, mode: str, status: int) -> None:
    headers = [("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", mode)]
    assert send(server.address, path="/metrics", headers=headers).status == status


def test_every_answer_protects_itself(server: Endpoint) -> None:
    wanted = {
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
    }
    answers: dict[str, Response] = {path: send(server.address, path=path) for path in PATHS}
    answers["405"] = send(server.address, "POST", "/metrics")
    answers["403"] = send(server.address, headers=[("Sec-Fetch-Site", "cross-site")])
    with Connection(server.address) as connection:
        connection.socket.sendall(b"garbage\r\n\r\n")
        answers["400"] = connection.read_response()
    for name, answer in answers.items():
        assert {key: answer.headers.get(key) for key in wanted} == wanted, name
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], name


def basic(user: str, password: str) -> list[tuple[str, str]]:
    text = base64.b64encode(f"{user}:{password}".encode()).decode()
    return [("Authorization", f"Basic {text}")]


def write_users(path: Path, cost: int = 4, **users: str) -> None:
    """Write a web configuration with these passwords."""
    hashes = {user: bcrypt.hashpw(text.encode(), bcrypt.gensalt(cost)).decode() for user, text in users.items()}
    path.write_text("basic_auth_users:\n" + "".join(f"  {user}: {text}\n" for user, text in hashes.items()))


@pytest.mark.seam
def test_passwords(tmp_path: Path) -> None:
    write_users(tmp_path / "web.yml", prometheus="secret", other="else")
    with Endpoint(web=WebOptions(web_config=str(tmp_path / "web.yml"))) as server:
        found = {
            (user, password): send(server.address, path="/metrics", headers=basic(user, password)).status
            for user in ("prometheus", "other", "nobody", "")
            for password in ("secret", "else", "", "s" * 100, "secret\0x")
        }
        bare = send(server.address, path="/metrics")
        unread = [send(server.address, path=path).status for path in ("/", "/status.json", "/none")]
        probes = [send(server.address, path=path).status for path in ("/-/healthy", "/-/ready")]
        odd = [
            send(server.address, path="/metrics", headers=[("Authorization", text)]).status
            for text in ("Basic", "Basic !!!", "Basic cHJvbWV0aGV1cw==", "Bearer x", "Digest x", "Basic /////w==")
        ]
        twice = send(server.address, path="/metrics", headers=[*basic("other", "else"), *basic("prometheus", "secret")])
        counts = {sample.labels["reason"]: sample.value for sample in server.endpoint.counts.families({})[0].samples}
    assert [pair for pair, status in found.items() if status == 200] == [("prometheus", "secret"), ("other", "else")]
    assert set(found.values()) == {200, 401}
    assert bare.status == 401
    assert bare.headers["www-authenticate"] == 'Basic realm="promgun", charset="UTF-8"'
    assert (unread, probes, set(odd), twice.status) == ([401] * 3, [200] * 2, {401}, 401)
    assert counts["credentials"] == 18 + 1 + 3 + 6 + 1


class SlowBcrypt:
    """Checks that last until the test lets them; counts who is compared with which cost."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.compared: list[bytes] = []
        self.most_at_once = 0
        self._at_once = 0

    def __call__(self, password: bytes, stored: bytes) -> bool:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.compared.append(stored)
        assert self.go_on.wait(20)
        self._at_once -= 1
        return password == b"secret"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowBcrypt:
    check = SlowBcrypt()
    monkeypatch.setattr("promgun.endpoint.access._check_password", check)
    return check


def test_one_password_is_checked_at_a_time_and_no_scrape_waits_for_it(tmp_path: Path, slow: SlowBcrypt) -> None:
    write_users(tmp_path / "web.yml", prometheus="secret")
    with Endpoint(web=WebOptions(web_config=str(tmp_path / "web.yml"))) as server, ExitStack() as clients:
        slow.go_on.set()
        assert send(server.address, path="/metrics", headers=basic("prometheus", "secret")).status == 200
        slow.go_on.clear()
        guesses = [clients.enter_context(Connection(server.address)) for _ in range(9)]
        for number, client in enumerate(guesses):
            request = Request("/metrics", headers=basic("prometheus", f"guess {number}"))
            client.socket.sendall(request.encode("1.1", keepalive=False))
        wait_until(lambda: len(slow.compared) == 2)
        # One runs and eight wait: a tenth is told to come again.
        wait_until(lambda: send(server.address, path="/metrics", headers=basic("prometheus", "guess 10")).status == 429)
        began = time.monotonic()
        assert send(server.address, path="/metrics", headers=basic("prometheus", "secret")).status == 200
        assert send(server.address, path="/-/healthy").status == 200
        assert time.monotonic() - began < PROMPT
        slow.go_on.set()
        assert {client.read_response().status for client in guesses} == {401}
        assert send(server.address, path="/metrics", headers=basic("prometheus", "guess 3")).status == 401
    assert slow.most_at_once == 1
    # Right and wrong results were remembered.
    assert len(slow.compared) == 10


def test_guesses_do_not_push_a_right_result_out(tmp_path: Path, slow: SlowBcrypt) -> None:
    write_users(tmp_path / "web.yml", prometheus="secret")
    slow.go_on.set()
    with Endpoint(web=WebOptions(web_config=str(tmp_path / "web.yml"))) as server:
        assert send(server.address, path="/metrics", headers=basic("prometheus", "secret")).status == 200
        with Connection(server.address) as connection:
            for number in range(authentication.REMEMBERED + 1):
                request = Request("/metrics", headers=basic("prometheus", f"guess {number}"))
                assert connection.request(request, keepalive=True).status == 401
        compared = len(slow.compared)
        assert send(server.address, path="/metrics", headers=basic("prometheus", "secret")).status == 200
        assert len(slow.compared) == compared
        assert send(server.address, path="/metrics", headers=basic("prometheus", "guess 0")).status == 401
        assert len(slow.compared) == compared + 1


def test_unknown_users_cost_as_much_as_known_ones(tmp_path: Path, slow: SlowBcrypt) -> None:
    write_users(tmp_path / "web.yml", 5, prometheus="secret")
    slow.go_on.set()
    with Endpoint(web=WebOptions(web_config=str(tmp_path / "web.yml"))) as server:
        assert send(server.address, path="/metrics", headers=basic("nobody", "secret")).status == 401
    (stand_in,) = slow.compared
    assert stand_in.startswith(b"$2b$05$")
    assert bcrypt.checkpw(b"secret", stand_in) is False


def test_bearer_tokens(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n\nsecond\n")
    with Endpoint(web=WebOptions(bearer_token_file=str(tmp_path / "token"))) as server:
        found = {
            text: send(server.address, path="/metrics", headers=[("Authorization", text)]).status
            for text in (
                "Bearer first",
                "bearer second",
                "Bearer third",
                "Bearer ",
                "Bearer firstsecond",
                "Basic first",
            )
        }
        bare = send(server.address, path="/metrics")
        probe = send(server.address, path="/-/ready")
    assert [text for text, status in found.items() if status == 200] == ["Bearer first", "bearer second"]
    assert set(found.values()) == {200, 401}
    assert (bare.status, bare.headers["www-authenticate"], probe.status) == (401, "Bearer", 200)


def test_rate_limit_and_headers(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text(
        "rate_limit: {interval: 1h, burst: 3}\nhttp_server_config: {headers: {X-Frame-Options: deny}}\n"
    )
    with Endpoint(web=WebOptions(web_config=str(tmp_path / "web.yml"))) as server:
        answers = [send(server.address, path="/metrics") for _ in range(5)]
        assert send(server.address, path="/-/healthy").status == 200
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert {answer.headers["x-frame-options"] for answer in answers} == {"deny"}


def test_unix_sockets_ask_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    with Endpoint(bind_to=f"unix:{tmp_path}/s", web=WebOptions(bearer_token_file=str(tmp_path / "token"))) as server:
        assert send(server.address, path="/metrics").status == 200


def test_places_of_filters_are_shared_by_address() -> None:
    collecting, released = threading.Event(), threading.Event()

    def collect() -> list[object]:
        collecting.set()
        assert released.wait(20)
        return families()  # type: ignore[return-value]

    with Endpoint(collect, limits=Limits(filters=4, waiting_filters=4)) as server, ExitStack() as clients:  # type: ignore[arg-type]
        first = clients.enter_context(Connection(server.address))
        first.socket.sendall(Request("/metrics").encode("1.1", keepalive=False))
        assert collecting.wait(10)
        # A round runs, so these are for the next.
        greedy = [clients.enter_context(Connection(server.address, "127.0.0.2")) for _ in range(8)]
        for number, client in enumerate(greedy):
            client.socket.sendall(Request(f"/metrics?name[]=n{number}").encode("1.1", keepalive=False))
        refused = [client.read_response().status for client in greedy[4:]]
        modest = [clients.enter_context(Connection(server.address, "127.0.0.3")) for _ in range(3)]
        for number, client in enumerate(modest):
            client.socket.sendall(Request(f"/metrics?name[]=pears&name[]=m{number}").encode("1.1", keepalive=False))
        # Two places each: the third of the modest one gets none.
        assert modest[2].read_response().status == 503
        released.set()
        answers = [client.read_response().status for client in (*greedy[:4], *modest[:2], first)]
    assert refused == [503] * 4
    assert sorted(answers[:4]) == [200, 200, 503, 503]
    assert answers[4:] == [200, 200, 200]
