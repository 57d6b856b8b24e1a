"""A new master takes over by SIGUSR2: no page is missed, no total sinks, nothing is left behind."""

from __future__ import annotations

import signal
from pathlib import Path
from threading import Thread

import pytest

from tests.support.harness import PromgunProcess, Sandbox, is_alive, wait_until
from tests.support.http_client import Request, load, send
from tests.support.watch import Watch

pytestmark = pytest.mark.seam

REQUESTS = "gunicorn_requests_total"


def probe(worker_type: str, *args: str, sandbox: Sandbox | None = None) -> PromgunProcess:
    """Return a server of the probe application with two workers."""
    threads = ("--threads", "4") if worker_type == "gthread" else ()
    return PromgunProcess("-k", worker_type, *threads, *args, app="probe:app", sandbox=sandbox, workers=2)


def start_new_master(server: PromgunProcess) -> tuple[int, int]:
    """Send SIGUSR2, wait until the new master's workers serve; return the old and the new master's pid."""
    old = server.master_pid
    server.send_signal(signal.SIGUSR2)
    new = wait_until(lambda: server.master_pid if server.master_pid != old else None)
    wait_until(
        lambda: server.scrape().by("state", "gunicorn_workers") == {"target": 4, "alive": 4, "booted": 4},
        message=lambda: str(server.scrape().by("state", "gunicorn_workers")) + server.log,
    )
    return old, new


def stop(server: PromgunProcess, master: int) -> None:
    """End one of the masters and wait until it, and all that it started, are gone."""
    metrics_pid = server.metrics_pid(master)
    pids = [master, *server.workers(master), *([metrics_pid] if metrics_pid else [])]
    server.send_signal(signal.SIGTERM, master)
    wait_until(lambda: server.process.poll() is not None if master == server.process.pid else True)
    wait_until(lambda: not any(map(is_alive, pids)))


def test_upgrade_without_a_gap_and_again_under_load(worker_type: str) -> None:
    with Sandbox() as sandbox, probe(worker_type, sandbox=sandbox) as server:
        address, metrics = server.address, server.metrics_address
        sent = load(address, 20, path="/ok")
        server.expect(REQUESTS, 20)
        (run,) = sandbox.runs()
        with Watch(metrics) as watch:
            old, new = start_new_master(server)
            sent += load(address, 40, path="/ok", keepalive=False)
            server.expect(REQUESTS, 60)
            stop(server, old)
            sent += load(address, 20, path="/ok", keepalive=False)
            server.expect(REQUESTS, 80)
        watch.assert_flawless()
        assert sent == {200: 80}
        assert server.process.returncode == 0
        wait_until(lambda: server.scrape().by("state", "gunicorn_workers")["alive"] == 2)
        assert (server.address, server.metrics_address) == (address, metrics)
        assert server.metrics_pid(new)
        assert [entry["pid"] for entry in sandbox.runs()] == [new]
        assert server.dump().sum(REQUESTS) == 80
        assert server.scrape().sum("gunicorn_worker_requests_total") == 80
        server.expect("gunicorn_master_signals_total", 1, signal="usr2")
        assert Path(run["store"]).exists()
        answers: list[object] = []
        requests = [Request("/sleep/0.005")] * 400
        sender = Thread(target=lambda: answers.append(load(address, requests, keepalive=False)))
        sender.start()
        # Gunicorn notices in its loop that the old master is gone; before that, it takes no SIGUSR2.
        wait_until(lambda: "Master has been promoted" in server.log)
        start_new_master(server)
        stop(server, new)
        sender.join(60)
        assert answers == [{200: 400}]
        server.expect(REQUESTS, 480)
    assert not Path(run["store"]).exists()
    assert "Traceback" not in server.log


def test_upgrade_that_is_taken_back() -> None:
    with Sandbox() as sandbox, probe("sync", sandbox=sandbox) as server:
        assert load(server.address, 10, path="/ok") == {200: 10}
        metrics = server.metrics_address
        with Watch(metrics) as watch:
            old, new = start_new_master(server)
            stop(server, new)
            assert load(server.address, 10, path="/ok") == {200: 10}
            server.expect(REQUESTS, 20)
        watch.assert_flawless()
        wait_until(lambda: server.scrape().by("state", "gunicorn_workers")["alive"] == 2)
        assert [entry["pid"] for entry in sandbox.runs()] == [old]
        assert is_alive(old)


def test_second_upgrade_follows_the_first() -> None:
    with probe("sync") as server:
        for count in (1, 2):
            assert load(server.address, 10, path="/ok") == {200: 10}
            old, _ = start_new_master(server)
            stop(server, old)
            server.expect(REQUESTS, 10 * count)
            # Gunicorn notices in its loop that the old master is gone; before that, it takes no SIGUSR2.
            wait_until(lambda count=count: server.log.count("Master has been promoted") == count)  # type: ignore[misc]


def test_upgrade_when_the_old_master_is_killed() -> None:
    with probe("gthread") as server:
        assert load(server.address, 10, path="/ok") == {200: 10}
        server.expect(REQUESTS, 10)
        old, new = start_new_master(server)
        workers = server.workers(old)
        server.send_signal(signal.SIGKILL, old)
        server.process.wait(10)
        wait_until(lambda: not any(map(is_alive, workers)))
        assert load(server.address, 10, path="/ok") == {200: 10}
        server.expect(REQUESTS, 20)
        assert is_alive(new)
        (run,) = [run for run in server.sandbox.runs() if run["pid"] == new]
        assert Path(run["store"]).exists()
        server.dump()


def test_upgrade_with_unix_sockets_and_a_pid_file() -> None:
    with Sandbox() as sandbox:
        application, metrics, pidfile = (sandbox.directory / name for name in ("a.sock", "m.sock", "pid"))
        with PromgunProcess(
            "--pid",
            str(pidfile),
            app="probe:app",
            sandbox=sandbox,
            bind=f"unix:{application}",
            metrics=f"unix:{metrics}",
            workers=2,
        ) as server:
            assert load(server.address, 10, path="/ok") == {200: 10}
            old, new = start_new_master(server)
            stop(server, old)
            assert send(server.address, path="/ok").status == 200
            server.expect(REQUESTS, 11)
            wait_until(lambda: int(pidfile.read_text()) == new)
        assert not application.exists()
        assert not metrics.exists()
        assert not pidfile.exists()


def test_upgrade_of_a_daemon() -> None:
    with Sandbox() as sandbox:
        args = ("--daemon", "--enable-stdio-inheritance", "--pid", str(sandbox.directory / "pid"))
        with probe("sync", *args, sandbox=sandbox) as server:
            assert server.wait() == 0
            assert load(server.address, 10, path="/ok") == {200: 10}
            old, new = start_new_master(server)
            server.send_signal(signal.SIGTERM, old)
            wait_until(lambda: not is_alive(old))
            server.expect(REQUESTS, 10)
            assert [entry["pid"] for entry in sandbox.runs()] == [new]
