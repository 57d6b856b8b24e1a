"""TLS on the eventlet worker, and what importing it does."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.eventlet_server import DEADLINE, GET, Server, answer, closed, serve, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.seam, pytest.mark.unmeasured("its clients time what the worker does")]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a self-signed certificate for this run: with its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", "/CN=test", "-days", "2", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return path


@contextmanager
def serve_tls(folder: Path, certificate: Path, *options: str) -> Iterator[Server]:
    with serve(folder, f"--certfile={certificate}", *options) as server:
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        server.tls.check_hostname = False
        server.tls.verify_mode = ssl.CERT_NONE
        yield server


HANDSHAKE = pytest.mark.parametrize("handshake", [[], ["--do-handshake-on-connect"]], ids=["lazy", "on connect"])


@HANDSHAKE
def test_tls_serves_beside_silent_and_foreign_clients(tmp_path: Path, certificate: Path, handshake: list[str]) -> None:
    (tmp_path / "data").write_bytes(content := os.urandom(1 << 20))
    options = [*handshake, "--keep-alive=30"]
    with serve_tls(tmp_path, certificate, *options) as server, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(server.connect(tls=False))
        foreign = stack.enter_context(server.connect(tls=False))
        foreign.sendall(b"GET / HTTP/1.0\r\n\r\n")
        server.said("Invalid request from ip=127.0.0.1")
        begun = time.monotonic()
        assert server.get(f"/file?path={tmp_path}/data&length={len(content)}") == (200, content)
        idle = stack.enter_context(server.connect())
        for _ in range(2):
            idle.sendall(GET)
            assert answer(idle)[0].status == 200
        assert time.monotonic() - begun < 20
        server.send(signal.SIGTERM)
        assert server.ended() < 20
        assert closed(idle)
    assert "Traceback" not in server.text + (tmp_path / "stderr").read_text()


def test_a_tls_handshake_is_given_up_after_the_timeout(tmp_path: Path, certificate: Path) -> None:
    with serve_tls(tmp_path, certificate, "--timeout=2") as server, server.connect(tls=False) as silent:
        assert closed(silent)
        assert server.get()[0] == 200


# The retirement message, and what importing does


@pytest.mark.parametrize("warnings", ["default", "error"])
def test_eventlets_retirement_is_told_once_by_the_master(tmp_path: Path, warnings: str) -> None:
    with serve(tmp_path, "--workers=2", warnings=warnings) as server:
        until(lambda: len({server.get()[1] for _ in range(5)}) == 2, "both workers answering")
        server.send(signal.SIGTERM)
        server.ended()
    told = [line for line in server.text.splitlines() if "retire" in line]
    assert len(told) == 1
    assert f"[{server.master.pid}]" in told[0]
    assert (tmp_path / "stderr").read_text() == ""


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def test_importing_the_module_patches_nothing() -> None:
    program = (
        "import socket, promgun.workers._eventlet_server\n"
        "from eventlet import patcher\n"
        "assert socket.socket.__module__ == 'socket'\n"
        "assert not patcher.already_patched\n"
    )
    done = run_python(program)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        ("sys.modules['eventlet'] = None", "import of eventlet halted"),
        (
            "import eventlet; eventlet.__version__ = '0.39.1'",
            "0.40.3 or newer is needed, 0.39.1 is installed",
        ),
    ],
    ids=["absent", "too old"],
)
def test_without_a_usable_eventlet_only_the_import_fails(installed: str, message: str) -> None:
    done = run_python(
        "import sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import promgun.workers\n"
        f"{installed}\n"
        "try:\n"
        "    import promgun.workers._eventlet_server\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert message in done.stdout
