"""Where a page comes from: a store, an address, or the one instance that runs."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from promgun.errors import ExitCode, InstanceError, StoreError, UsageError
from promgun.instances.entries import Run
from promgun.instances.page_source import StoreSource, UrlSource, source_for
from promgun.instances.registry import register

PAGE = b"# HELP shop_sales_total Sales.\n# TYPE shop_sales_total counter\nshop_sales_total 3.0\n"


def answer(body: bytes, status: str = "200 OK") -> Callable[[socket.socket], None]:
    """A server that answers each request so."""

    def serve(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body))

    return serve


class Requests(list[bytes]):
    """The heads of the requests that a server got."""

    def path(self) -> str:
        return self[0].split()[1].decode()


@contextmanager
def serving(listener: socket.socket, respond: Callable[[socket.socket], None]) -> Iterator[Requests]:
    """Take one connection after the other in a thread."""
    requests = Requests()

    def loop() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                try:
                    requests.append(client.recv(65536))
                    if requests[-1]:
                        respond(client)
                except OSError:
                    continue

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@contextmanager
def http(respond: Callable[[socket.socket], None]) -> Iterator[tuple[str, Requests]]:
    listener = socket.create_server(("127.0.0.1", 0))
    with serving(listener, respond) as requests:
        yield f"127.0.0.1:{listener.getsockname()[1]}", requests


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ("{}", "/metrics"),
        ("http://{}", "/metrics"),
        ("http://{}/", "/metrics"),
        ("http://{}/own?name[]=a", "/own?name[]=a"),
    ],
)
def test_page_of_an_address(form: str, path: str) -> None:
    with http(answer(PAGE)) as (address, requests):
        (family,) = UrlSource(form.format(address)).families()
    assert (family.name, family.type, family.samples[0].value) == ("shop_sales", "counter", 3.0)
    assert requests.path() == path
    assert b"Accept: text/plain;version=0.0.4\r\n" in requests[0]


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_page_of_a_unix_socket(tmp_path: Path, form: str) -> None:
    path = tmp_path / "metrics.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with serving(listener, answer(PAGE)) as requests:
        assert len(UrlSource(form.format(path)).families()) == 1
    assert requests.path() == "/metrics"


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_nothing_there() -> None:
    address = closed_port()
    with pytest.raises(InstanceError, match=f"{address} does not answer: Connection refused.*promgun ps") as caught:
        UrlSource(address).families()
    assert caught.value.exit_code == ExitCode.NO_INSTANCE


def test_no_such_socket(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match="does not answer: No such file"):
        UrlSource(f"unix:{tmp_path}/absent").families()


def test_silence_ends_in_time() -> None:
    held = threading.Event()
    started = time.monotonic()

    def stay_silent(_client: socket.socket) -> None:
        held.wait(60)

    with http(stay_silent) as (address, _):
        with pytest.raises(InstanceError, match="timed out"):
            UrlSource(address, timeout=0.2).families()
        held.set()
    assert time.monotonic() - started < 30


def test_trickle_ends_in_time() -> None:
    """Each byte restarts the socket's own time-out, so the whole answer has one."""
    over = threading.Event()

    def drip(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not over.wait(0.02):
            client.sendall(b"#")

    with http(drip) as (address, _):
        with pytest.raises(InstanceError, match="not finished after 2 s"):
            UrlSource(address, timeout=2).families()
        over.set()


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        (answer(b"gone", "404 Not Found"), "answered 404 Not Found.*address of the metrics page"),
        (answer(b"", "302 Found"), "answered 302 Found"),
        (answer(b"<html>hello</html>"), "did not answer with metrics"),
        (answer(b"\xff\xfe"), "did not answer with metrics"),
        (lambda client: client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), "does not answer: .*SSH"),
        (
            lambda client: client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"),
            "the page ends 7 bytes early",
        ),
        (lambda _client: None, "does not answer: Remote end closed connection"),
    ],
)
def test_what_is_no_page_of_metrics(respond: Callable[[socket.socket], None], message: str) -> None:
    with http(respond) as (address, _), pytest.raises(InstanceError, match=message):
        UrlSource(address).families()


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/x", "http://", "http://127.0.0.1:banana", "127.0.0.1:99999", "http://[::1", ""]
)
def test_bad_address(url: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        UrlSource(url).families()


# -- which one -------------------------------------------------------------------------------------------------------


def test_one_source_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--dir and --url cannot be given together"):
        source_for(None, tmp_path, "127.0.0.1:1")
    with pytest.raises(UsageError, match="--instance and --dir and --url"):
        source_for("shop", tmp_path, "127.0.0.1:1")


def test_named_sources(tmp_path: Path) -> None:
    assert source_for(None, tmp_path, None) == StoreSource(tmp_path)
    assert source_for(None, None, "127.0.0.1:1") == UrlSource("127.0.0.1:1")


def test_the_one_instance_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMGUN_RUNTIME_DIR", str(tmp_path / "runtime"))
    with pytest.raises(InstanceError, match="no running promgun instance"):
        source_for(None, None, None)
    store = tmp_path / "store"
    register(
        Run(
            name="shop",
            pid=os.getpid(),
            started=1.0,
            application="shop:app",
            worker_type="sync",
            addresses=(),
            metrics_addresses=(),
            store=store,
        )
    )
    assert source_for(None, None, None) == source_for("shop", None, None) == StoreSource(store)


def test_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read the store .*absent: No such file.*promgun ps"):
        StoreSource(tmp_path / "absent").families()


def test_directory_without_metrics(tmp_path: Path) -> None:
    for name in ("notes.txt", "app.db", "apt.lock"):
        (tmp_path / name).touch()
    with pytest.raises(StoreError, match=r"holds no metrics.*--metrics-dir"):
        StoreSource(tmp_path).families()
