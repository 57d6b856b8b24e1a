"""What systemd is told: when the server listens, and which master goes on after an upgrade."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from promgun.export.command import ServerOptions
from promgun.export.systemd import SystemdOptions, systemd
from tests.harness import DEADLINE, PromgunProcess, Sandbox

PROGRAM = str(Path(sys.executable).with_name("promgun"))


@pytest.mark.seam
def test_main_process_is_handed_over_in_an_upgrade(sandbox: Sandbox) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        path = str(sandbox.directory / "notify")
        notified.bind(path)

        def told() -> str:
            assert select.select([notified], [], [], DEADLINE)[0], "systemd was told nothing"
            return notified.recv(4096).decode()

        with PromgunProcess(sandbox=sandbox, env={"NOTIFY_SOCKET": path}, workers=1) as server:
            old = server.master_pid
            assert told().startswith("READY=1")
            server.send_signal(signal.SIGUSR2)
            assert told().startswith("READY=1")
            server.expect("gunicorn_workers", 2, state="booted")
            server.send_signal(signal.SIGTERM, old)
            assert told() == f"MAINPID={server.master_pid}"
            assert server.wait() == 0
            assert server.master_pid != old
    os.unlink(path)


UNITS = {
    "plain": SystemdOptions(program=PROGRAM, directory="/tmp"),  # noqa: S108 - one that exists
    "all": SystemdOptions(
        server=ServerOptions(
            app='shop:create("a b", "50%", "$HOME")',
            bind="0.0.0.0:80",
            metrics_bind="unix:/run/shop/metrics.sock",
            worker_type="gthread",
            threads=4,
            arguments=("--max-requests", "1000"),
        ),
        name="shop.web",
        description='The "shop" 100%',
        user="root",
        group="daemon",
        directory="/tmp",  # noqa: S108 - one that exists
        program=PROGRAM,
        environment=("A=b c", 'QUOTED="x" \\ %h $HOME', "EMPTY="),
    ),
}


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("options", UNITS.values(), ids=UNITS)
def test_systemd_takes_the_unit(options: SystemdOptions, tmp_path: Path) -> None:
    unit = tmp_path / f"{options.name}.service"
    unit.write_text(systemd(options))
    assert verify(unit) == (0, "")
    unit.write_text(systemd(options).replace("KillMode=mixed", "KillMode=mild"))
    assert "kill mode" in verify(unit)[1]


def verify(unit: Path) -> tuple[int, str]:
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_command_of_the_unit_is_one_that_promgun_takes(sandbox: Sandbox) -> None:
    server = ServerOptions(app="promgun.demo:app", worker_type="gthread", threads=2, arguments=("--max-requests", "10"))
    unit = systemd(SystemdOptions(server=server, program=PROGRAM))
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    program, *words = command.split()
    assert program == PROGRAM
    finished = sandbox.run("-m", "promgun", *words, "--check-config")
    assert finished.returncode == 0, finished.stderr
