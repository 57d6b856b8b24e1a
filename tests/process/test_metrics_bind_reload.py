"""SIGHUP with another ``metrics_bind``: what stays is never refused, what a refused reload bound is gone."""

from __future__ import annotations

import os
import random
import signal
import socket
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import send
from tests.support.sockets import connections_of
from tests.support.watch import Watch

pytestmark = pytest.mark.seam


def listening(pid: int) -> set[str]:
    """Return where a process listens: ``HOST:PORT`` and paths."""
    found = connections_of(pid)
    unix = [str(each.laddr) for each in connections_of(pid, "unix") if each.laddr]
    return {f"{each.laddr.ip}:{each.laddr.port}" for each in found if each.status == psutil.CONN_LISTEN} | set(unix)


class Reloading:
    """A server whose ``metrics_bind`` is changed by HUP, one listener of which must never refuse anybody."""

    def __init__(self, server: PromgunProcess, sandbox: Sandbox) -> None:
        self.server, self.sandbox = server, sandbox
        self.results = {"ok": 0, "failed": 0}
        self.kept = server.metrics_address

    def hup(self, *binds: str, result: str) -> None:
        """Reload with these addresses; wait until it is counted as this."""
        self.sandbox.write("gunicorn.conf.py", f"metrics_bind = {list(binds)}\n")
        self.server.send_signal(signal.SIGHUP)
        self.results[result] += 1
        wait_until(lambda: self.counted() == self.results, message=lambda: self.server.log)

    def counted(self) -> dict[str, float]:
        """Return ``gunicorn_reloads_total`` by result, as the listener that stays tells it."""
        page = send(self.kept, path="/metrics").text
        pairs = [line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("gunicorn_reloads_total{")]
        return {labels.split('"')[1]: float(value) for labels, value in pairs}

    def expect(self, *addresses: str) -> None:
        """Wait until the metrics process listens on exactly these."""
        wait_until(
            lambda: (pid := self.server.metrics_pid()) and listening(pid) == set(addresses),
            message=lambda: f"{listening(self.server.metrics_pid() or 0)} is not {addresses}: {self.server.log}",
        )


@pytest.mark.parametrize("worker", ["sync", "gevent"])
def test_addresses_are_added_dropped_replaced_and_refused(sandbox: Sandbox, worker: str) -> None:
    first, second = sandbox.directory / "1.sock", sandbox.directory / "2.sock"
    config = "metrics_bind = ['127.0.0.1:0']\n"
    args = ("-k", worker, "--graceful-timeout", "3")
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        PromgunProcess(*args, sandbox=sandbox, config=config, metrics=None) as server,
    ):
        wait_until(lambda: "Metrics at" in server.log)
        wait_until(lambda: server.scrape().sum("gunicorn_workers", state="booted") == 1)
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        port = f"127.0.0.1:{server.metrics_address[1]}"
        reload = Reloading(server, sandbox)
        inode = inode_of(server.master_pid, port)
        with Watch(reload.kept) as watch:
            reload.hup("127.0.0.1:0", f"unix:{first}", result="ok")
            reload.expect(port, str(first))
            reload.hup("127.0.0.1:0", f"unix:{second}", result="ok")
            reload.expect(port, str(second))
            assert not first.exists()

            for bad in (taken, "nonsense:", "192.0.2.1:0", "unix:/no/such/folder/s"):
                reload.hup("127.0.0.1:0", f"unix:{first}", bad, result="failed")
                assert not first.exists(), bad
                reload.expect(port, str(second))
                assert send(str(second), path="/-/healthy").status == 200
            assert server.log.count("Reload refused") == 4

            process = server.metrics_pid()
            reload.hup("127.0.0.1:0", f"unix:{second}", "localhost:0", f"unix:{second}", port, result="ok")
            reload.expect(port, str(second))
            assert server.metrics_pid() == process, "nothing changed, so the same process serves it"

            second.unlink()
            reload.hup("127.0.0.1:0", f"unix:{second}", result="ok")
            reload.expect(port, str(second))
            wait_until(lambda: send(str(second), path="/-/healthy").status == 200)

            reload.hup(port, result="ok")
            reload.expect(port)
            assert not second.exists()
        watch.assert_flawless()
        assert inode_of(server.master_pid, port) == inode
        (run,) = sandbox.runs()
        assert run["metrics_addresses"] == [f"http://{port}/metrics"]


def inode_of(pid: int, address: str) -> str:
    """Return what the kernel calls the socket that listens there."""
    (fd,) = {
        each.fd
        for each in connections_of(pid, "tcp")
        if each.status == psutil.CONN_LISTEN and f"{each.laddr.ip}:{each.laddr.port}" == address
    }
    return os.readlink(f"/proc/{pid}/fd/{fd}")


def free_on_every_interface() -> int:
    """Return a port that nothing has, below those that the system gives to whoever asks for any: a connection of
    somebody else's may have one of these on another address.
    """
    below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(below // 2, below), 100):
        with suppress(OSError), socket.socket() as sock:
            sock.bind(("", port))
            return port
    raise AssertionError("no port is free")


def test_address_opens_to_every_interface_and_closes_again(sandbox: Sandbox) -> None:
    config = f"metrics_bind = ['127.0.0.1:{free_on_every_interface()}']\n"
    with PromgunProcess(sandbox=sandbox, config=config, metrics=None) as server:
        wait_until(lambda: "Metrics at" in server.log)
        reload = Reloading(server, sandbox)
        port = server.metrics_address[1]
        for bind in (f":{port}", f"127.0.0.1:{port}"):
            reload.hup(bind, result="ok")
            reload.expect(f"{bind.partition(':')[0] or '0.0.0.0'}:{port}")


def test_new_master_has_the_listeners_and_what_the_file_says_now(sandbox: Sandbox) -> None:
    path = sandbox.directory / "added.sock"
    config = "metrics_bind = ['127.0.0.1:0']\n"
    with PromgunProcess(sandbox=sandbox, config=config, metrics=None) as server:
        wait_until(lambda: "Metrics at" in server.log)
        wait_until(lambda: server.scrape().sum("gunicorn_workers", state="booted") == 1)
        kept, old = server.metrics_address, server.master_pid
        port = f"127.0.0.1:{kept[1]}"
        with Watch(kept) as watch:
            sandbox.write("gunicorn.conf.py", f"metrics_bind = ['127.0.0.1:0', 'unix:{path}']\n")
            server.send_signal(signal.SIGUSR2)
            wait_until(lambda: server.master_pid != old)
            wait_until(lambda: (pid := server.metrics_pid()) and listening(pid) == {port, str(path)})
            server.send_signal(signal.SIGTERM, old)
            assert server.wait() == 0
            wait_until(lambda: send(str(path), path="/-/ready").status == 200)
        assert not watch.failures, watch.failures[:3]
    wait_until(lambda: not path.exists())
