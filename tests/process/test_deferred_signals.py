"""Signals that come while a worker is being forked, and processes that hooks start meanwhile."""

from __future__ import annotations

import signal

import pytest

from tests.support.harness import GUNICORN, PROMGUN, PromgunProcess, Sandbox, wait_until
from tests.support.sandbox import is_alive

pytestmark = [pytest.mark.seam, pytest.mark.unmeasured("signals come while an interpreter starts")]


def test_processes_of_hooks_can_be_stopped(sandbox: Sandbox) -> None:
    hook = "def {}(server, worker): subprocess.Popen(['sleep', '600'])\n"
    config = "import subprocess\n" + hook.format("pre_fork") + hook.format("post_fork")
    with PromgunProcess(sandbox=sandbox, config=config):
        started = [process for process in sandbox.processes() if process.name() == "sleep"]
        assert len(started) == 2
        for process in started:
            process.terminate()
        wait_until(lambda: not [one for one in started if is_alive(one.pid)])


@pytest.mark.parametrize("launcher", ["promgun", "gunicorn"])
def test_worker_that_is_just_forked_hears_the_reload(sandbox: Sandbox, launcher: str) -> None:
    """A signal that is lost costs the whole graceful timeout, here more than a test may take."""
    config = (
        "import os, time\n"
        "graceful_timeout = 100\n"
        "def post_fork(server, worker):\n"
        "    open(f'forked-{worker.age}', 'w').close()\n"
        "    time.sleep(1 if worker.age == 3 else 0)\n"
    )
    command, metrics = (GUNICORN, None) if launcher == "gunicorn" else (PROMGUN, "127.0.0.1:0")
    with PromgunProcess(
        "-k",
        "promgun.PrometheusWorker",
        command=command,
        metrics=metrics,
        sandbox=sandbox,
        config=config,
        workers=2,
    ) as server:
        server.send_signal(signal.SIGKILL, server.workers()[0])
        wait_until((sandbox.directory / "forked-3").exists)
        server.send_signal(signal.SIGHUP)
        wait_until((sandbox.directory / "forked-5").exists)
        assert server.stop() == 0
