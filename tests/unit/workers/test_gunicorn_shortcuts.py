"""Shortcuts through Gunicorn's request path: each does what the function does that it replaces."""

from __future__ import annotations

import fcntl
import logging
import os
import selectors
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from gunicorn import util
from gunicorn.config import Config
from gunicorn.http.wsgi import WSGIErrorsWrapper
from gunicorn.sock import TCPSocket
from gunicorn.workers.gthread import TConn
from gunicorn.workers.sync import SyncWorker
from gunicorn.workers.workertmp import WorkerTmp

from promgun.workers import _gunicorn_shortcuts as shortcuts
from promgun.workers._gunicorn_shortcuts import SHORTCUTS, Shortcut, may_pause, remember_name, take_shortcuts

BY_NAME = {shortcut.name: shortcut for shortcut in SHORTCUTS}


def shortcut_for(name: str) -> Callable[..., Any]:
    shortcut = BY_NAME[name]
    made: Callable[..., Any] = shortcut.replace(getattr(shortcut.owner, name))
    assert made is not getattr(shortcut.owner, name)
    return made


def test_a_date_is_the_one_that_gunicorn_would_send(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    asked: list[float] = []

    class Clock:
        @staticmethod
        def time() -> float:
            return now

    def counted(timestamp: float | None = None) -> str:
        asked.append(-1.0 if timestamp is None else timestamp)
        return plain(timestamp)

    plain: Callable[..., str] = util.http_date
    monkeypatch.setattr(util, "time", Clock)
    http_date = BY_NAME["http_date"].replace(counted)
    moments = (
        1e9,
        1e9 + 0.5,
        1e9 + 0.9989,
        1e9 + 0.9995,
        1e9 + 0.9999998,
        1e9 + 1,
        1e9 + 1.2,
        1e9 - 3.5,
        1e9 - 3.4,
        1e9 + 10.9999998,
        1e9 + 10.5,
        0.0,
    )
    for now in moments:
        assert http_date() == plain(now), now
    # at 0.5, 0.9989, 1.2 and -3.4 it is known
    assert len(asked) == len(moments) - 4
    assert http_date(86400.0) == plain(86400.0) == "Fri, 02 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize("path", ["/", "", "/a/b", "/a%20b", "/%", "/%zz", "/%c3%a9", "/\xe9", "/\u20ac", "/a\x7fb"])
def test_a_path_is_decoded_as_gunicorn_does(path: str) -> None:
    decode = shortcut_for("unquote_to_wsgi_str")
    assert decode(path) == util.unquote_to_wsgi_str(path)
    assert decode(path.encode("utf-8")) == util.unquote_to_wsgi_str(path.encode("utf-8"))


@pytest.mark.parametrize("errorlog", ["-", "/nonexistent"])
def test_wsgi_errors_writes_to_the_streams_of_this_moment(errorlog: str) -> None:
    cfg = Config()
    cfg.set("errorlog", errorlog)
    log = logging.getLogger("gunicorn.error")
    before = list(log.handlers)
    begin = shortcut_for("__init__")

    class Ours(WSGIErrorsWrapper):  # type: ignore[misc] # gunicorn is untyped
        __init__ = begin

    try:
        # The first handler is the one of "-"; one without a stream, as to syslog, is left out.
        for handlers in (
            [logging.StreamHandler(sys.stdout)],
            [logging.NullHandler(), logging.StreamHandler(sys.stderr)],
        ):
            log.handlers[:] = handlers
            assert Ours(cfg).streams == WSGIErrorsWrapper(cfg).streams
            assert len(Ours(cfg).streams) == 1 + (errorlog == "-") * isinstance(handlers[0], logging.NullHandler)
    finally:
        log.handlers[:] = before


@pytest.fixture
def connection() -> Iterator[tuple[Any, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield TConn(Config(), ours, ("127.0.0.1", 1), ("127.0.0.1", 2)), theirs


@pytest.mark.parametrize("waits", ["gunicorn", "shortcut"])
def test_a_connection_is_waited_for(connection: tuple[Any, socket.socket], waits: str) -> None:
    conn, client = connection
    wait = shortcut_for("wait_for_data") if waits == "shortcut" else TConn.wait_for_data
    assert wait(conn, 0.0) is False
    assert wait(conn, 0.0001) is False
    assert wait(conn, -1.0) is False
    assert not conn.data_ready
    client.send(b"G")
    assert wait(conn, 5.0) is True
    assert conn.data_ready
    conn.sock.recv(1)
    # it is not asked again
    assert wait(conn, 5.0) is True


@pytest.mark.parametrize("waits", ["gunicorn", "shortcut"])
def test_an_end_wakes_it_and_a_closed_socket_is_not_waited_for(
    connection: tuple[Any, socket.socket], waits: str
) -> None:
    conn, client = connection
    wait = shortcut_for("wait_for_data") if waits == "shortcut" else TConn.wait_for_data
    client.close()
    assert wait(conn, 5.0) is True
    conn.data_ready = False
    # The application closed the descriptor, of which the socket knows nothing.
    os.close(conn.sock.fileno())
    assert wait(conn, 5.0) is False
    conn.sock.detach()
    assert wait(conn, 5.0) is False


def test_where_a_selector_takes_no_more_calls_gunicorns_own_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    assert BY_NAME["wait_for_data"].replace(TConn.wait_for_data) is TConn.wait_for_data


def test_only_the_function_that_it_was_written_for_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Owner:
        @staticmethod
        def traced(*args: Any) -> Any:
            return util.http_date(*args)

        http_date = staticmethod(util.http_date)

    date = BY_NAME["http_date"]
    mine = tuple(Shortcut(Owner, name, date.names, date.replace) for name in ("traced", "http_date", "gone"))
    monkeypatch.setattr(shortcuts, "SHORTCUTS", mine)
    traced = Owner.traced
    assert [shortcut.applies for shortcut in mine] == [False, True, False]
    take_shortcuts()
    assert Owner.traced is traced
    replaced = Owner.http_date
    assert replaced is not util.http_date
    take_shortcuts()
    assert Owner.http_date is replaced, "twice"


class Heard(SyncWorker):  # type: ignore[misc] # gunicorn is untyped
    """Notes what it was given."""

    def __init__(self) -> None:
        self.handled: list[tuple[Any, Any, Any]] = []

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        self.handled.append((listener, client, addr))


def seen_of(client: socket.socket) -> tuple[Any, ...]:
    flags = fcntl.fcntl(client, fcntl.F_GETFL)
    return client.gettimeout(), client.getblocking(), client.get_inheritable(), bool(flags & os.O_NONBLOCK)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Gunicorn's own is kept")
@pytest.mark.parametrize("timeout", [None, 5.0, 0.0])
def test_an_accepted_connection_is_what_gunicorn_makes_of_it(timeout: float | None) -> None:
    accept = shortcut_for("accept")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # As Gunicorn's are, which Python's accept would pass on to a client without SOCK_CLOEXEC.
        listener.settimeout(0)
        listener.set_inheritable(True)
        worker = Heard()
        socket.setdefaulttimeout(timeout)
        try:
            for take in (SyncWorker.accept, accept):
                with socket.socket() as client:
                    client.settimeout(5)
                    client.connect(listener.getsockname())
                    take(worker, listener)
            with pytest.raises(BlockingIOError):
                accept(worker, listener)
        finally:
            socket.setdefaulttimeout(None)
        (_, theirs, _), (passed, ours, addr) = worker.handled
        with theirs, ours:
            assert seen_of(ours) == seen_of(theirs) == (None, True, False, False)
            assert passed is listener
            assert addr[0] == "127.0.0.1"


def test_a_listener_keeps_its_name_and_accepts() -> None:
    with closing(TCPSocket(("127.0.0.1", 0), Config(), logging.getLogger("test"))) as listener:
        name = listener.getsockname()
        remember_name(listener)
        assert listener.getsockname() == name == listener.sock.getsockname()
        with socket.create_connection(name) as client:
            listener.settimeout(5)
            accepted, addr = listener.accept()
            with accepted:
                assert addr == client.getsockname()
        with pytest.raises(AttributeError):
            assert listener.nothing_of_the_kind


def test_only_listeners_of_gunicorns_are_remembered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        remember_name(listener)
        assert not hasattr(listener, "__dict__") or "getsockname" not in vars(listener)


def test_only_gunicorns_own_heartbeat_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(SyncWorker):  # type: ignore[misc] # same
        def __init__(self) -> None:
            """Boot nothing."""

    class Checked(Own):
        def notify(self) -> None:
            """Look at something else as well."""

    assert may_pause(Own().notify)
    assert not may_pause(Checked().notify)
    monkeypatch.setattr(WorkerTmp, "notify", lambda self: self.fchmod())
    assert not may_pause(Own().notify)
