"""The metrics process: how it starts, whom it outlives, how it ends, what it may use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from promgun.config.listeners import bind
from promgun.config.metrics_addresses import parse_address
from promgun.endpoint.process import (
    EXIT_FAILED,
    IGNORED_SIGNALS,
    STOP_SIGNAL,
    EndpointConfig,
)
from tests.support.endpoint_process import COLLECTOR, address, config, running
from tests.support.endpoint_server import PROMPT, read_all
from tests.support.http_client import Connection, Request, send
from tests.support.sandbox import is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


needs_root = pytest.mark.needs_root("become somebody else")
NOBODY = 65534


@pytest.fixture(autouse=True)
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a collector that every interpreter can import."""
    (tmp_path / "test_collector.py").write_text(COLLECTOR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    sock = bind(parse_address("127.0.0.1:0"))
    yield sock
    sock.close()


def test_it_serves_and_stops_with_0_when_told(listener: socket.socket) -> None:
    with running(listener) as process:
        page = send(address(listener), path="/metrics")
        assert f'who{{cwd="{os.getcwd()}",multiproc="",store="/some/store"}} {float(process.pid)}' in page.text
        process.send_signal(STOP_SIGNAL)
        assert process.wait(5) == 0


def test_it_can_be_told_to_stop_before_it_is_ready(listener: socket.socket) -> None:
    with running(listener) as process:
        process.send_signal(STOP_SIGNAL)
        assert process.wait(10) == 0


def test_signals_of_a_group_do_nothing_at_any_moment(listener: socket.socket) -> None:
    with running(listener) as process:
        for _ in range(40):
            for number in IGNORED_SIGNALS:
                process.send_signal(number)
            time.sleep(0.005)
        assert send(address(listener), path="/-/ready").status == 200
        for number in IGNORED_SIGNALS:
            process.send_signal(number)
        assert send(address(listener), path="/-/ready").status == 200
        assert process.poll() is None


def test_spawn_leaves_the_signals_of_the_master_as_they_were(listener: socket.socket) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with running(listener):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize(
    "changes",
    [{"collector": "no_such_module:Collector"}, {"collector": "test_collector:Missing"}, {"fds": (999,)}],
)
def test_what_cannot_work_ends_with_70(
    listener: socket.socket, changes: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    sockets = [] if "fds" in changes else [listener]
    if not sockets:
        command = [sys.executable, "-c", "from promgun.endpoint.main import run; import sys; run(sys.argv[1])"]
        code = subprocess.run([*command, config(**changes).to_json()], check=False).returncode
    else:
        with running(listener, **changes) as process:
            code = process.wait(10)
    assert code == EXIT_FAILED
    assert "The metrics process failed" in capfd.readouterr().err


def test_wrong_parent_ends_it_with_0(listener: socket.socket) -> None:
    with running(listener, master_pid=1) as process:
        assert process.wait(10) == 0


def test_config_survives_the_command_line() -> None:
    full = config(fds=(3, 4), uid=1, gid=2, initgroups=True, label="a 'quoted' \u00fcmlaut")
    assert EndpointConfig.from_json(full.to_json()) == full


def test_modules_in_the_working_directory_do_not_stand_in_for_others(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "application"
    folder.mkdir()
    for name in ("h11", "asyncio", "logging", "promgun", "prometheus_client"):
        (folder / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{tmp_path}")
    with running(listener):
        assert send(address(listener), path="/metrics").status == 200


def test_it_inherits_its_sockets_and_nothing_else(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with (tmp_path / "test_collector.py").open() as other:
        os.set_inheritable(other.fileno(), True)  # noqa: FBT003 - the standard library's signature
        with running(listener) as process:
            assert 'multiproc=""' in send(address(listener), path="/metrics").text
            assert str(tmp_path) not in str(psutil.Process(process.pid).open_files())


# A master that starts the process, says its pid, and waits for its own end.
MASTER = """
import os, signal, sys
from promgun.endpoint.process import EndpointConfig, spawn
from promgun.config.listeners import bind
from promgun.config.metrics_addresses import parse_address
listener = bind(parse_address("127.0.0.1:0"))
user = int(sys.argv[1]) or None
config = EndpointConfig(store="/x", master_pid=os.getpid(), collector="test_collector:Collector", uid=user, gid=user)
child = spawn(config, [listener])
print(child.pid, listener.getsockname()[1], flush=True)
signal.pause()
"""


@pytest.mark.parametrize("user", [0, pytest.param(NOBODY, marks=needs_root)])
def test_it_ends_with_its_master(user: int) -> None:
    command = [sys.executable, "-c", MASTER, str(user)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as master:
        assert master.stdout
        pid, port = map(int, master.stdout.readline().split())
        try:
            assert send(("127.0.0.1", port), path="/-/ready").status == 200
            master.kill()
            wait_until(lambda: not is_alive(pid), PROMPT)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    # Nobody holds the port any more.
    bind(parse_address(f"127.0.0.1:{port}")).close()


@needs_root
@pytest.mark.parametrize("initgroups", [False, True])
def test_it_becomes_the_workers_user_and_keeps_no_group(listener: socket.socket, *, initgroups: bool) -> None:
    with running(listener, uid=NOBODY, gid=NOBODY, initgroups=initgroups) as process:
        assert send(address(listener), path="/metrics").status == 200
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    status = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
    assert status["Uid"] == status["Gid"] == [str(NOBODY)] * 4
    assert status["Groups"] == [str(NOBODY)]


def test_importing_what_starts_it_is_cheap() -> None:
    heavy = ("asyncio", "h11", "prometheus_client", "gunicorn", "psutil")
    code = f"import sys, promgun.endpoint.process; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


FOREGROUND = """
import sys
from pathlib import Path
from promgun.endpoint.main import serve_store
from promgun.config.listeners import bind, close_and_unlink, describe
from promgun.config.metrics_addresses import parse_address
listener = bind(parse_address(sys.argv[1]))
print(describe(listener), flush=True)
serve_store(Path("/some/store"), [listener], "test_collector:Collector")
close_and_unlink(listener)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground_ends_cleanly(number: int, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = [sys.executable, "-c", FOREGROUND, f"unix:{path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == f"unix:{path}\n"
            with Connection(str(path)) as connection:
                assert connection.request(Request("/metrics"), keepalive=True).status == 200
                process.send_signal(number)
                assert read_all(connection.socket) == b""
            assert process.wait(5) == 0
        finally:
            process.kill()
    assert not path.exists()
