"""Accept queues, asked of the real kernel."""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from promgun.collect.accept_queues import AcceptQueues, Queue, read_overflows
from tests.support.sandbox import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sock_diag is Linux'")


@pytest.mark.parametrize(
    ("family", "host", "shown"), [(socket.AF_INET, "127.0.0.1", "127.0.0.1"), (socket.AF_INET6, "::1", "[::1]")]
)
def test_tcp(family: socket.AddressFamily, host: str, shown: str) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind((host, 0))
        listener.listen(7)
        port = listener.getsockname()[1]
        for _ in range(3):
            stack.enter_context(socket.create_connection((host, port)))
        address = f"http://{shown}:{port}"
        wait_until(lambda: AcceptQueues().read([address]) == [Queue(address, 3, 7)])


def test_unix(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(5)
        for _ in range(2):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        assert AcceptQueues().read([f"unix:{path}"]) == [Queue(f"unix:{path}", 2, 5)]


def test_sockets_that_share_an_address_are_added_up() -> None:
    with ExitStack() as stack:
        port = 0
        for _ in range(2):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(4)
            port = listener.getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        assert AcceptQueues().read([address]) == [Queue(address, 0, 8)]


def test_nobody_listens() -> None:
    assert AcceptQueues().read(["http://127.0.0.1:1", "unix:/nowhere"]) == []
    assert AcceptQueues().read([]) == []


def test_overflows(tmp_path: Path) -> None:
    netstat = tmp_path / "netstat"
    netstat.write_text("TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 33\nIpExt: A\nIpExt: 2\n")
    assert read_overflows(netstat) == {"overflows": 22.0, "drops": 33.0}
    assert read_overflows(tmp_path / "gone") == {}
    netstat.write_text("")
    assert read_overflows(netstat) == {}
    assert set(read_overflows()) == {"overflows", "drops"}
