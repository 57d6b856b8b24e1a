"""Addresses of the metrics endpoint, read, bound, shown and given up."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from promgun.config.listeners import Address, bind, close_and_unlink, describe, parse_address
from promgun.errors import ExitCode, MetricsAddressError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9164", "127.0.0.1", 9164),
        (" localhost:0 ", "localhost", 0),
        ("my-host_1.example.org:65535", "my-host_1.example.org", 65535),
        ("127.0.0.1", "127.0.0.1", 9164),
        ("localhost", "localhost", 9164),
        (":8000", "0.0.0.0", 8000),
        ("[::1]:8000", "::1", 8000),
        ("[::]", "::", 9164),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
    ],
)
def test_hosts_and_ports_are_read(text: str, host: str, port: int) -> None:
    address = parse_address(text)
    assert address == Address(host=host, port=port)
    assert parse_address(str(address)) == address


def test_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_address("unix:run/s") == parse_address(f"unix:{tmp_path}/run/s")
    assert str(parse_address("unix:s")) == f"unix:{tmp_path}/s"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "9164",
        "host:",
        "host:http",
        "host:-1",
        "host:65536",
        "host:1:2",
        "host:\u0661",
        "::1",
        "::1:9164",
        "[::1",
        "[::1]9164",
        "[::1]:",
        "[host]:1",
        "http://host:1",
        "ho st:1",
        "host:1/metrics",
        "unix:",
        "unix:a\0b",
        "unix:" + "x" * 200,
    ],
)
def test_anything_else_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(MetricsAddressError) as caught:
        parse_address(text)
    assert caught.value.exit_code == ExitCode.METRICS_ADDRESS
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "advice"), [("9164", "127.0.0.1:9164"), ("::1", "[::1]:9164"), ("http://host:1", "HOST:PORT")]
)
def test_hint_says_what_to_write(text: str, advice: str) -> None:
    with pytest.raises(MetricsAddressError, match="cannot be understood") as caught:
        parse_address(text)
    assert advice in caught.value.hint


@pytest.fixture
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with bind(parse_address(getattr(request, "param", "127.0.0.1:0"))) as sock:
        yield sock


@pytest.mark.parametrize("listener", ["127.0.0.1:0", "[::1]:0", "localhost:0"], indirect=True)
def test_listener_takes_connections_and_is_nobody_elses(listener: socket.socket) -> None:
    socket.create_connection(listener.getsockname()[:2]).close()
    listener.settimeout(5)
    listener.accept()[0].close()
    assert not listener.get_inheritable()
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_accept_does_not_block(listener: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("listener", ["localhost:0"], indirect=True)
def test_name_with_both_kinds_of_addresses_is_bound_on_ipv4(listener: socket.socket) -> None:
    assert listener.family == socket.AF_INET


@pytest.mark.parametrize("listener", ["[::]:0"], indirect=True)
def test_ipv6_leaves_ipv4_to_others(listener: socket.socket) -> None:
    assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@pytest.mark.parametrize(
    ("listener", "shown"),
    [("127.0.0.1:0", "http://127.0.0.1:{}"), ("[::1]:0", "http://[::1]:{}"), (":0", "http://0.0.0.0:{}")],
    indirect=["listener"],
)
def test_address_in_use_is_shown(listener: socket.socket, shown: str) -> None:
    assert describe(listener) == shown.format(listener.getsockname()[1])


@pytest.mark.parametrize("listener", ["127.0.0.1:0", "[::1]:0"], indirect=True)
def test_taken_port_is_told_with_the_next_step(listener: socket.socket) -> None:
    address = describe(listener).removeprefix("http://")
    with pytest.raises(MetricsAddressError) as caught:
        bind(parse_address(address))
    assert str(caught.value) == (
        f"Cannot listen for metrics on {address}: the address is already in use. Choose another with --metrics-bind "
        "(127.0.0.1:0 takes a free port), or see what runs with: promgun ps"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("192.0.2.1:0", "this machine has no such address"),
        ("no-such-host.invalid:0", "'no-such-host.invalid' is not known here"),
        ("unix:/no/such/folder/s", "the folder does not exist"),
    ],
)
def test_other_reasons_are_told(text: str, reason: str) -> None:
    with pytest.raises(MetricsAddressError, match=reason) as caught:
        bind(parse_address(text))
    assert caught.value.hint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


def test_unix_socket_is_bound_shown_and_removed(path: Path) -> None:
    sock = bind(parse_address(f"unix:{path}"))
    assert describe(sock) == f"unix:{path}"
    assert path.is_socket()
    close_and_unlink(sock)
    assert not path.exists()


def test_stale_socket_file_is_replaced(path: Path) -> None:
    bind(parse_address(f"unix:{path}")).close()
    assert path.exists()
    close_and_unlink(bind(parse_address(f"unix:{path}")))


def test_live_socket_file_is_left_alone(path: Path) -> None:
    with bind(parse_address(f"unix:{path}")), pytest.raises(MetricsAddressError, match="already in use"):
        bind(parse_address(f"unix:{path}"))
    assert path.is_socket()


def test_full_queue_is_alive_too(path: Path) -> None:
    with bind(parse_address(f"unix:{path}"), backlog=0), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with pytest.raises(MetricsAddressError, match="already in use"):
            bind(parse_address(f"unix:{path}"))


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_what_is_no_socket_is_never_removed(path: Path, kind: str) -> None:
    make: dict[str, Callable[[], None]] = {
        "file": path.touch,
        "folder": path.mkdir,
        "dangling link": lambda: path.symlink_to("nowhere"),
    }
    make[kind]()
    with pytest.raises(MetricsAddressError, match="is not a socket"):
        bind(parse_address(f"unix:{path}"))
    assert path.is_symlink() or path.exists()


def test_socket_file_stays_while_another_process_listens_there(path: Path) -> None:
    sock = bind(parse_address(f"unix:{path}"))
    with sock.dup() as other:
        close_and_unlink(sock)
        assert path.is_socket()
        close_and_unlink(other)
    assert not path.exists()


def test_giving_up_what_is_gone_already_is_no_error(path: Path, listener: socket.socket) -> None:
    sock = bind(parse_address(f"unix:{path}"))
    path.unlink()
    close_and_unlink(sock)
    close_and_unlink(listener)
    assert listener.fileno() == -1


@pytest.mark.needs_root("give files away")
def test_socket_file_gets_its_owner(path: Path) -> None:
    sock = bind(parse_address(f"unix:{path}"), uid=65534, gid=65533)
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65533)
    close_and_unlink(sock)


@contextmanager
def without_rights() -> Iterator[Path]:
    """Give a folder, and be nobody in it: root may do anything."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


def test_missing_rights_are_told_and_nothing_is_left() -> None:
    with without_rights() as folder:
        path = folder / "socket"
        with pytest.raises(MetricsAddressError, match="no permission"):
            bind(parse_address(f"unix:{path}"), uid=0)
        assert not path.exists()
