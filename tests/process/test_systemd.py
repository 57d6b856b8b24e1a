"""What systemd is told: when the server listens, and which master goes on after an upgrade."""

from __future__ import annotations

import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from promgun.export.command import ServerOptions
from promgun.export.systemd import SystemdOptions, systemd
from tests.support.harness import DEADLINE, PromgunProcess, Sandbox
from tests.support.http_client import send
from tests.support.sandbox import MARK
from tests.support.unit_sandbox import may_confine

pytestmark = pytest.mark.unmeasured("there is no place to write what was run")

ROOT = Path(__file__).parents[2]
REQUESTS = "gunicorn_requests_total"
PROGRAM = str(Path(sys.executable).with_name("promgun"))


@contextmanager
def notifications(sandbox: Sandbox) -> Iterator[tuple[str, Callable[[], str]]]:
    """Listen as systemd does; give the path of the socket, and what waits for the next message."""
    path = str(sandbox.directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(path)
        # systemd's is open to all.
        os.chmod(path, 0o777)  # noqa: S103

        def told() -> str:
            assert select.select([notified], [], [], DEADLINE)[0], "systemd was told nothing"
            return notified.recv(4096).decode()

        yield path, told
    os.unlink(path)


def hand_over(server: PromgunProcess, told: Callable[[], str], old: int, workers: int) -> None:
    """Upgrade by USR2 and end the old master; systemd is told of each step. ``workers`` are those of both masters."""
    server.send_signal(signal.SIGUSR2)
    assert told().startswith("READY=1")
    server.expect("gunicorn_workers", workers, state="booted")
    server.send_signal(signal.SIGTERM, old)
    assert told() == f"MAINPID={server.master_pid}"
    assert server.wait() == 0


def test_main_process_is_handed_over_in_an_upgrade(sandbox: Sandbox) -> None:
    with (
        notifications(sandbox) as (path, told),
        PromgunProcess(sandbox=sandbox, env={"NOTIFY_SOCKET": path}, workers=1) as server,
    ):
        old = server.master_pid
        assert told().startswith("READY=1")
        hand_over(server, told, old, workers=2)
        assert server.master_pid != old


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


#: An application that says how it is confined, and what it may write to.
CONFINED = """
import os
from pathlib import Path

def app(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/status":
        return [Path("/proc/self/status").read_bytes()]
    if path == "/pids":
        return [" ".join(name for name in os.listdir("/proc") if name.isdigit()).encode()]
    try:
        target = Path(path.removeprefix("/write"), f"test-{os.getpid()}")
        target.write_text("x")
        target.unlink()
    except OSError as error:
        return [error.strerror.encode()]
    return [b"written"]
"""


class AsUnit(PromgunProcess):
    """The exported unit's command, with the unit's user, mounts, rights and filters, as systemd would start it."""

    def __init__(self, sandbox: Sandbox, notify: str) -> None:
        super().__init__(sandbox=sandbox, app=None, bind=None)
        sandbox.write("confined.py", CONFINED)
        name = f"promgun-test-{sandbox.mark[:8]}"
        server = ServerOptions(app="confined:app", worker_type="gthread", threads=2)
        options = SystemdOptions(name=name, server=server, program=PROGRAM, directory=str(sandbox.directory))
        # Ports that the system chooses: a unit for use names one.
        unit = sandbox.write(f"{name}.service", re.sub(r"(127\.0\.0\.1):\d+", r"\1:0", systemd(options)))
        self.runtime = Path("/run", name)
        # What the program is made of: it lies where the unit would not let it be seen (/tmp), or its user not reach it.
        kept = {
            sys.prefix,
            sys.base_prefix,
            *(str(ROOT / folder) for folder in ("promgun", "tests")),
            str(sandbox.directory),
        }
        self.argv = [sys.executable, "-m", "tests.support.unit_sandbox", str(unit), *sorted(kept)]
        self._env = {
            "PYTHONPATH": str(ROOT),
            "UNIT_NOTIFY_SOCKET": notify,
            f"UNIT_{MARK}": sandbox.mark,
        }

    def ask(self, path: str) -> str:
        """Return what the application answers."""
        return send(self.address, path=path).text

    def promgun(self, *words: str) -> str:
        """Return what ``promgun`` prints to an administrator outside, told what the unit's comment tells."""
        finished = self.sandbox.run("-m", "promgun", *words, env={"PROMGUN_RUNTIME_DIR": str(self.runtime)})
        assert finished.returncode == 0, finished.stderr
        return finished.stdout


@pytest.mark.skipif(not may_confine(), reason="only root may confine")
@pytest.mark.needs("systemd-analyze")
def test_the_unit_confines_and_everything_works_all_the_same(sandbox: Sandbox) -> None:
    with notifications(sandbox) as (path, told):
        unit = AsUnit(sandbox, path)
        try:
            with unit as server:
                check_confined_server(server, told)
            assert [entry.name for entry in unit.runtime.iterdir() if entry.name != "lock"] == []
        finally:
            # systemd removes it when the unit ends.
            shutil.rmtree(unit.runtime, ignore_errors=True)


def check_confined_server(server: AsUnit, told: Callable[[], str]) -> None:
    """Assert that the confinement is there, and that one can serve, scrape, reload, upgrade and stop in it."""
    assert told().startswith("READY=1")
    status = dict(line.split(":", 1) for line in server.ask("/status").splitlines())
    assert {name: status[name].strip() for name in ("Seccomp", "NoNewPrivs", "CapBnd", "CapEff")} == {
        "Seccomp": "2",
        "NoNewPrivs": "1",
        "CapBnd": "0" * 16,
        "CapEff": "0" * 16,
    }
    assert set(status["Uid"].split()) == {str(pwd.getpwnam("www-data").pw_uid)}
    assert "1" not in server.ask("/pids").split()
    refused = {
        path: server.ask(f"/write{path}") for path in (str(server.sandbox.directory), "/etc", "/var/lib", "/dev")
    }
    assert set(refused.values()) <= {"Read-only file system", "Permission denied"}
    assert "Read-only file system" in refused.values()
    assert {server.ask(f"/write{path}") for path in ("/tmp", "/dev/shm", str(server.runtime))} == {"written"}  # noqa: S108

    old = server.master_pid
    assert server.promgun("ps").split().count(str(old)) == 1
    server.expect(REQUESTS, 9)
    assert f'{REQUESTS}{{method="GET",route="",status="200"}} 9.0' in server.promgun("metrics", "dump")
    page = server.fresh()
    assert page.sum("promgun_store_errors_total") == 0
    assert page.sum("gunicorn_worker_resident_memory_bytes") > 0
    assert page.sum("gunicorn_listener_queue_limit") > 0, "asked by netlink"

    server.send_signal(signal.SIGHUP)
    server.expect("gunicorn_worker_exits_total", 2, cause="reload")
    hand_over(server, told, old, workers=4)
    assert server.ask("/status")
    server.expect(REQUESTS, 10)
    assert "Traceback" not in server.log
    assert "denied" not in server.log
    assert "Operation not permitted" not in server.log
