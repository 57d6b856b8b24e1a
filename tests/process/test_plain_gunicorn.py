"""Plain Gunicorn with promgun's worker classes: ``gunicorn -k promgun.PrometheusWorker app:app``."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.harness import GUNICORN, PromgunProcess, Sandbox, is_alive, wait_until
from tests.support.http_client import Request, load, send

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.seam

REQUESTS = "gunicorn_requests_total"
CLASSES = {
    "sync": "promgun.PrometheusWorker",
    "gthread": "promgun.PrometheusThreadWorker",
    "gevent": "promgun.PrometheusGeventWorker",
    "eventlet": "promgun.PrometheusEventletWorker",
}
MIXED = [Request("/ok"), Request("/status/404"), Request("/fail/ValueError")]


def plain(
    worker_type: str, *args: str, app: str = "probe:app", sandbox: Sandbox | None = None, config: str = ""
) -> PromgunProcess:
    """Return a plain Gunicorn with two workers of one of our classes."""
    threads = ("--threads", "4") if worker_type == "gthread" else ()
    return PromgunProcess(
        "-k",
        CLASSES[worker_type],
        *threads,
        *args,
        app=app,
        command=GUNICORN,
        metrics=None,
        sandbox=sandbox,
        config=config,
        workers=2,
    )


def expect_dump(server: PromgunProcess, name: str, value: float) -> None:
    """Wait until ``promgun metrics dump`` shows this sum."""
    wait_until(lambda: server.dump().sum(name) == value, message=lambda: f"{name} {server.dump().sum(name)}")


def obedient(server: PromgunProcess, without: Sequence[int] = ()) -> list[int]:
    """Return the pids of two workers that a signal reaches, once there are two and none of those."""
    return wait_until(lambda: pids if len(pids := server.obedient()) == 2 and not {*pids} & {*without} else None)


def test_metrics_are_collected_without_any_configuration_and_survive_workers_and_reloads(worker_type: str) -> None:
    with Sandbox() as sandbox, plain(worker_type, sandbox=sandbox) as server:
        assert load(server.address, MIXED * 10) == Counter({200: 10, 404: 10, 500: 10})
        expect_dump(server, REQUESTS, 30)
        page = server.dump()
        assert page.by("status", REQUESTS) == {"200": 10, "404": 10, "500": 10}
        assert page.sum("gunicorn_failed_requests_total", error_type="ValueError") == 10
        assert page.value("gunicorn_up") == 1
        (run,) = sandbox.runs()
        assert (run["pid"], run["application"]) == (server.master_pid, "probe:app")
        store = Path(run["store"])
        assert store.exists()
        ps = sandbox.run("-m", "promgun", "ps").stdout
        assert str(server.master_pid) in ps
        before = obedient(server)
        server.send_signal(signal.SIGKILL, before[0])
        before = obedient(server, without=before[:1])
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: not any(map(is_alive, before)))
        obedient(server, without=before)
        assert load(server.address, 10, path="/ok") == {200: 10}
        expect_dump(server, REQUESTS, 40)
        page = server.dump()
        assert page.sum("gunicorn_worker_requests_in_progress") == 0
        # The two before the reload and the two that took their place, although one was killed: slots are used again.
        assert page.by("worker_id", "gunicorn_worker_busy_seconds_total").keys() <= {"1", "2", "3", "4"}
        server.stop()
        assert not store.exists()


@pytest.mark.unmeasured("the test before runs the same lines of each type")
def test_metrics_of_the_application_with_preload(worker_type: str) -> None:
    with plain(worker_type, "--preload", app="counting:app") as server:
        assert load(server.address, 10, path="/book") == {200: 10}
        expect_dump(server, "shop_orders_total", 10)


def test_one_line_adds_the_metrics_process() -> None:
    config = "from promgun.hooks import when_ready\n"
    with Sandbox() as sandbox:
        path = sandbox.directory / "metrics.sock"
        with PromgunProcess(
            "-k",
            "promgun.PrometheusWorker",
            app="probe:app",
            command=GUNICORN,
            metrics=None,
            env={
                "PROMGUN_METRICS_BIND": f"unix:{path}",
                "PROMGUN_METRICS_COLLECTOR": "collecting:Stock",
                "PROMGUN_METRICS_UNIQUE_MEMORY": "7",
            },
            sandbox=sandbox,
            config=config,
        ) as server:
            assert load(server.address, 10, path="/ok") == {200: 10}
            wait_until(lambda: "shop_stock{" in send(str(path), path="/metrics").text)
            wait_until(lambda: send(str(path), path="/-/ready").status == 200)
            wait_until(lambda: f"{REQUESTS}{{method=" in send(str(path), path="/metrics").text)
            page = send(str(path), path="/metrics").text
            assert 'gunicorn_requests_total{method="GET",route="",status="200"} 10.0' in page
            wait_until(lambda: "gunicorn_worker_unique_memory_bytes{" in send(str(path), path="/metrics").text)
            told = [" ".join(child.cmdline()) for child in psutil.Process(server.master_pid).children()]
            assert any('"unique_memory": 7' in words for words in told)
        assert not path.exists()


def test_class_of_ours_needs_no_import_of_others() -> None:
    program = "import sys, promgun; promgun.PrometheusWorker; print(*sys.modules)"
    with Sandbox() as sandbox:
        modules = sandbox.run("-c", program).stdout.split()
    assert "promgun.workers.sync" in modules
    assert not {"gevent", "eventlet"} & set(modules)
