"""A container with a read-only root file system: only shared memory can be written to."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.harness import PromgunProcess, Sandbox
from tests.support.http_client import load
from tests.support.unit_sandbox import may_confine

pytestmark = pytest.mark.unmeasured("there is no place to write what was run")

ROOT = Path(__file__).parents[2]
LAUNCHER = ("-m", "tests.support.read_only", "-m", "promgun")


@pytest.mark.skipif(not may_confine(), reason="only root may mount")
def test_it_serves_is_found_and_reloads(sandbox: Sandbox) -> None:
    memory = sandbox.directory / "memory"
    memory.mkdir()
    memory.chmod(0o1777)
    list_of_runs = memory / f"promgun-{os.geteuid()}"
    environment = {"PYTHONPATH": str(ROOT), "TEST_SHARED_MEMORY": str(memory)}
    name = f"read-only-{sandbox.mark[:8]}"
    command = (*LAUNCHER, "run")
    with PromgunProcess(
        "--name", name, command=command, sandbox=sandbox, env=environment, metrics="127.0.0.1:0", workers=2
    ) as server:
        assert load(server.address, 20, path="/fast") == {200: 20}
        server.expect("gunicorn_requests_total", 20)
        inside = sandbox.run(*LAUNCHER, "metrics", "dump", "--instance", name, env=environment)
        assert inside.returncode == 0, inside.stderr
        assert 'gunicorn_requests_total{method="GET",route="/fast",status="200"} 20.0' in inside.stdout
        server.send_signal(signal.SIGHUP)
        server.expect("gunicorn_worker_exits_total", 2, cause="reload")
        assert "cannot be registered" not in server.log
        assert "Traceback" not in server.log
        assert [path.name for path in list_of_runs.glob("*.json")] == [f"{server.master_pid}.json"]
    assert [path.name for path in list_of_runs.iterdir()] == ["lock"]
    assert [path.name for path in memory.iterdir()] == [list_of_runs.name], "the store is gone"
