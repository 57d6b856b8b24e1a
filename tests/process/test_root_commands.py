"""The commands of root read what workers wrote with the rights of the workers' user, never with root's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from promgun.system.fewer_rights import Child
from tests.support.harness import Sandbox, wait_until
from tests.support.http_client import send
from tests.support.root_server import REQUESTS, RootServer, nobody

pytestmark = pytest.mark.needs_root("read a store of another user's")

#: Runs a command of promgun's, and says afterwards which files below ``argv[1]`` this process opened as root.
AUDITED = """
import os, sys
watched = sys.argv[1]
opened = []
def audit(event, arguments):
    if event not in ("open", "os.listdir", "os.scandir") or os.geteuid():
        return
    path, *_ = arguments
    if isinstance(path, int):
        path = os.readlink(f"/proc/self/fd/{path}")
    path = os.fsdecode(path or "")
    if not path.startswith("/"):
        # Names below a descriptor: audit events do not say which, so all that are value files of slots count.
        path = watched + "/slots/" + path if path.split(".")[0].isdigit() and not path.endswith(".json") else path
    if path.startswith((watched + "/slots", watched + "/client")):
        opened.append(path)
sys.addaudithook(audit)
sys.argv[:2] = ["promgun"]
from promgun.cli.entry import start
try:
    start()
finally:
    sys.stdout.flush()
    # The folder itself is looked at, to see whose it is.
    print("OPENED", sorted({path for path in opened if path != watched + "/slots"}), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RootServer]:
    with Sandbox() as sandbox, RootServer(sandbox=sandbox, app="counting:app") as server:
        server.expect(REQUESTS, server.serve(20))
        yield server


def audited(server: RootServer, *arguments: str) -> str:
    """Run a command of root's; return its output after making sure that it opened nothing of the workers'."""
    done = server.sandbox.run("-c", AUDITED, str(server.run_directory), *arguments)
    assert done.returncode == 0, done.stderr
    assert "OPENED []" in done.stderr
    return done.stdout


def test_a_page_and_where_it_is_written(server: RootServer) -> None:
    page = server.scrape()
    read = audited(server, "metrics", "dump")
    assert {line.split(" ")[0] for line in read.splitlines() if line.startswith(REQUESTS)} == {
        line.split(" ")[0] for line in page.text.splitlines() if line.startswith(REQUESTS)
    }
    assert "# TYPE gunicorn_request_duration_seconds histogram" in read
    output = server.sandbox.directory / "page.json"
    audited(server, "metrics", "dump", "--dir", str(server.run_directory), "--format", "json", "--output", str(output))
    assert output.stat().st_uid == 0
    assert any(family["name"] == REQUESTS.removesuffix("_total") for family in json.loads(output.read_text()))


def test_workers_and_what_they_do(server: RootServer) -> None:
    workers = json.loads(audited(server, "ps", "--requests", "--format", "json"))
    assert {worker["pid"] for worker in workers} == set(server.workers())


def test_the_view(server: RootServer) -> None:
    text = audited(server, "metrics", "top", "--once", "--interval", "0.2")
    assert all(str(pid) in text for pid in server.workers())


def test_a_child_that_the_workers_stop_is_not_waited_for() -> None:
    """The workers' user may signal whatever has its rights."""
    owner = nobody()
    with closing(Child(owner.pw_uid, owner.pw_gid, lambda: b"answer", deadline=0.5)) as child:
        assert child.ask() == b"answer"
        (pid,) = [process.pid for process in psutil.Process().children() if process.uids().effective == owner.pw_uid]
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError, match=r"not read after 0\.5 s"):
            child.ask()
    with closing(Child(owner.pw_uid, owner.pw_gid, lambda: 1 // 0)) as child, pytest.raises(OSError, match="has ended"):  # type: ignore[arg-type,return-value] # what must not happen
        child.ask()
    assert not psutil.pid_exists(pid)


def test_a_child_has_none_of_roots_rights_and_cannot_be_traced_by_its_user() -> None:
    owner = nobody()

    def state() -> bytes:
        try:
            os.seteuid(0)
        except PermissionError:
            status = Path("/proc/self/status").read_text()
            wanted = ("Uid:", "Gid:", "Groups:", "CapEff:")
            lines = [line.split() for line in status.splitlines() if line.startswith(wanted)]
            # What the kernel does not let its user dump belongs to root.
            return json.dumps([lines, os.stat("/proc/self/mem").st_uid]).encode()
        return b"null"

    with closing(Child(owner.pw_uid, owner.pw_gid, state)) as child:
        lines, memory_owner = json.loads(child.ask())
    uid, gid = str(owner.pw_uid), str(owner.pw_gid)
    assert {name: rest for name, *rest in lines} == {
        "Uid:": [uid] * 4,
        "Gid:": [gid] * 4,
        "Groups:": [gid],
        "CapEff:": ["0" * 16],
    }
    assert memory_owner == 0


def test_a_directory_of_the_workers_cannot_show_root_a_file_of_roots(server: RootServer) -> None:
    """Whoever owns the named directory may put anything there, at any moment."""
    named = server.sandbox.directory / "named"
    named.mkdir(mode=0o755)
    os.chown(named, nobody().pw_uid, nobody().pw_gid)
    secret = server.sandbox.directory / "secret.counter"
    # of whichever worker has served
    secret.write_bytes(next((server.run_directory / "slots").glob("[12].counter")).read_bytes())
    secret.chmod(0o600)
    for part in ("master", "slots"):
        (named / ".promgun" / part).mkdir(parents=True)
    (named / ".promgun" / "slots" / "1.counter").hardlink_to(secret)
    # Everything in it is root's by now, and its owner may exchange it: so it is read with the owner's rights.
    text = server.sandbox.run("-m", "promgun", "metrics", "dump", "--dir", str(named)).stdout
    assert "gunicorn_up 0" in text
    assert "shop" not in text


def test_a_sidecar_of_roots_gives_up_its_rights(server: RootServer) -> None:
    sandbox, owner = server.sandbox, nobody()
    address = sandbox.directory / "sidecar.sock"
    command = (
        sys.executable,
        "-m",
        "promgun",
        "metrics",
        "serve",
        "--dir",
        str(server.run_directory),
        "--bind",
        f"unix:{address}",
    )
    with subprocess.Popen(command, env=sandbox.environment(), cwd=sandbox.directory) as sidecar:
        try:
            wait_until(address.exists)
            assert send(str(address), path="/metrics").status == 200
            assert b"gunicorn_up 1.0\n" in send(str(address), path="/metrics").body
            # By the worker itself: it changed its user, so the kernel hides it from others of that user.
            shown = b"gunicorn_worker_unique_memory_bytes{"
            wait_until(lambda: shown in send(str(address), path="/metrics").body)
            assert psutil.Process(sidecar.pid).uids().real == owner.pw_uid
        finally:
            sidecar.terminate()
            sidecar.wait()
            # Its user may not remove it from a folder of root's; the next start replaces it.
            address.unlink(missing_ok=True)
