"""Addresses of the metrics endpoint, read, bound, shown and given up."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from promgun.config.listeners import bind, bind_all, close_and_unlink, describe
from promgun.config.metrics_addresses import Address, check_addresses, parse_address, resolve
from promgun.errors import ExitCode, MetricsAddressError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from promgun.config.listeners import Listeners


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
    assert (address.host, address.port, address.path) == (host, port, "")
    assert str(parse_address(str(address))) == str(address)


def test_a_relative_path_begins_where_the_server_works_when_it_binds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = parse_address("unix:s")
    assert str(address) == "unix:s"
    monkeypatch.chdir(tmp_path)
    assert resolve(address).path == f"{tmp_path}/s"
    sock = bind(address)
    assert describe(sock) == f"unix:{tmp_path}/s"
    close_and_unlink(sock)


def test_path_too_long_once_it_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (deep := tmp_path / ("x" * 90)).mkdir()
    monkeypatch.chdir(deep)
    with pytest.raises(MetricsAddressError, match="longer than 103 bytes"):
        bind(parse_address("unix:" + "y" * 50))


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
    with pytest.raises(MetricsAddressError) as checked:
        check_addresses([parse_address(text)])
    assert str(checked.value) == str(caught.value)


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


# -- all or none --


def close(listeners: Listeners) -> None:
    """Give all of them up."""
    for sock in listeners.values():
        close_and_unlink(sock)


def addresses(*texts: str) -> list[Address]:
    """Read addresses."""
    return [parse_address(text) for text in texts]


def test_all_are_bound_in_order_and_each_once(path: Path) -> None:
    listeners = bind_all(addresses("127.0.0.1:0", f"unix:{path}", "localhost:0", f"unix:{path}", "[::1]:0"))
    shown = [describe(sock) for sock in listeners.values()]
    assert [text.rpartition(":")[0] for text in shown] == ["http://127.0.0.1", "unix", "http://[::1]"]
    close(listeners)


@pytest.mark.parametrize("bad", ["192.0.2.1:0", "unix:/no/such/folder/s", "no-such-host.invalid:0", "taken"])
def test_one_that_cannot_be_had_undoes_the_others(path: Path, listener: socket.socket, bad: str) -> None:
    text = f"127.0.0.1:{listener.getsockname()[1]}" if bad == "taken" else bad
    kept = bind_all(addresses("127.0.0.1:0"))
    with pytest.raises(MetricsAddressError):
        bind_all(addresses("127.0.0.1:0", f"unix:{path}", text), keep=kept)
    assert not path.exists()
    (sock,) = kept.values()
    socket.create_connection(sock.getsockname()).close()
    close(kept)


def test_listeners_whose_address_stays_are_the_same_sockets(path: Path) -> None:
    before = bind_all(addresses("127.0.0.1:0", f"unix:{path}", "[::1]:0"))
    tcp, unix, ipv6 = before.values()
    after = bind_all(addresses(f"unix:{path}", "localhost:0", "127.0.0.2:0"), keep=before)
    assert list(after.values())[:2] == [unix, tcp]
    assert ipv6.fileno() != -1, "what is dropped is the caller's to close"
    ipv6.close()
    close(after)


def test_port_that_was_free_and_is_named_now_is_the_same_listener() -> None:
    before = bind_all(addresses("127.0.0.1:0"))
    (sock,) = before.values()
    port = sock.getsockname()[1]
    after = bind_all(addresses(f"127.0.0.1:{port}", "127.0.0.1:0"), keep=before)
    assert list(after.values()) == [sock]
    close(after)


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux allows")
@pytest.mark.parametrize(("narrow", "wide"), [("127.0.0.1", ""), ("[::1]", "[::]")])
def test_listener_on_its_port_gives_way_to_another_address(narrow: str, wide: str) -> None:
    before = bind_all(addresses(f"{narrow}:0"))
    (first,) = before.values()
    port = first.getsockname()[1]
    widened = bind_all(addresses(f"{wide}:{port}"), keep=before)
    first.close()
    (second,) = widened.values()
    narrowed = bind_all(addresses(f"{narrow}:{port}"), keep=widened)
    second.close()
    (third,) = narrowed.values()
    assert len({first, second, third}) == 3
    assert not third.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    for text in (f"{narrow}:{port}", f"{wide}:{port}"):
        with pytest.raises(MetricsAddressError, match="in use"):
            bind_all(addresses(text))
    socket.create_connection(third.getsockname()[:2]).close()
    third.close()


def test_socket_file_that_was_removed_is_bound_again(path: Path) -> None:
    before = bind_all(addresses(f"unix:{path}"))
    path.unlink()
    after = bind_all(addresses(f"unix:{path}"), keep=before)
    (old,), (new,) = before.values(), after.values()
    assert new is not old
    close_and_unlink(old)
    assert path.is_socket()
    close(after)


def test_check_takes_no_address(path: Path) -> None:
    check_addresses(addresses("127.0.0.1:0", f"unix:{path}", "127.0.0.1:80"))
    assert not path.exists()
    with bind(parse_address("127.0.0.1:0")) as busy:
        check_addresses(addresses(f"127.0.0.1:{busy.getsockname()[1]}"))


def test_check_tells_an_address_of_the_application() -> None:
    for text, own in (("127.0.0.1:8000", ("127.0.0.1", 8000)), ("unix:/tmp/s", "/tmp/s")):  # noqa: S108 - a name only
        with pytest.raises(MetricsAddressError, match="application is served there"):
            check_addresses(addresses(text), application=[own])
    check_addresses(addresses("127.0.0.1:0"), application=[("127.0.0.1", 0)])
