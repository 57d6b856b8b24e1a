"""Hooks and applications that close descriptors which are not theirs, and open files of their own in their place."""

from __future__ import annotations

import os
import sys

import pytest

from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import send

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are found in /proc")

#: ``on_starting`` closes all, as code does that makes a daemon of itself, the other hooks what they find of promgun's.
#: Each then opens files, which get those numbers.
CONFIG = """\
import os

TAKEN = []

def take(name):
    for number in range(16):
        TAKEN.append(os.open(f"{name}-{os.getpid()}-{number}", os.O_RDWR | os.O_CREAT))

def check():
    for number in TAKEN:
        os.fstat(number)

def close_ours():
    for name in os.listdir("/proc/self/fd"):
        try:
            if "/.promgun" in os.readlink(f"/proc/self/fd/{name}"):
                os.close(int(name))
        except OSError:
            pass

def on_starting(server):
    os.closerange(3, 256)
    take("starting")

def when_ready(server):
    check()
    close_ours()
    take("ready")

def post_fork(server, worker):
    close_ours()
    take("forked")

def on_reload(server):
    check()

def post_worker_init(worker):
    check()
    close_ours()
    take("booted")
"""


def test_nothing_is_written_to_their_files_and_the_server_goes_on(sandbox: Sandbox) -> None:
    # Not in shared memory: until the master has locked its directory again, another run's start may remove it there.
    with PromgunProcess("--metrics-dir", "store", sandbox=sandbox, config=CONFIG, workers=2) as server:
        for _ in range(20):
            assert send(server.address).status == 200
        server.expect("gunicorn_requests_total", 20)
        server.expect("gunicorn_workers", 2, state="booted")
        assert "A metrics listener was closed by a hook or the application, and is bound again" in server.log
        assert server.scrape().value("gunicorn_up") == 1
        before = server.workers()
        server.send_signal(1)
        server.expect("gunicorn_reloads_total", 1, result="ok")
        wait_until(lambda: not {*before} & {*server.workers()})
        assert send(server.address).status == 200
        server.expect("gunicorn_requests_total", 21)
        assert server.stop() == 0
        assert "Traceback" not in server.log
    files = [
        path
        for path in sandbox.directory.iterdir()
        if path.name.partition("-")[0] in {"starting", "ready", "forked", "booted"}
    ]
    assert len(files) >= 16 * 4
    assert [path.name for path in files if path.stat().st_size] == []
    assert "m0" in os.listdir(sandbox.directory / "store" / ".promgun" / "master")
