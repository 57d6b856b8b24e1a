"""Every counter of the page is read without pause through every act of a server's life: none ever sinks."""

from __future__ import annotations

import os
import signal

from tests.support.harness import PromgunProcess, wait_until
from tests.support.http_client import load
from tests.support.watch import Watch

CPU = "gunicorn_master_cpu_seconds_total"


def settled(server: PromgunProcess, count: int) -> None:
    """Wait until so many workers are wanted, alive and booted."""
    wait_until(
        lambda: set(server.scrape().by("state", "gunicorn_workers").values()) == {count},
        message=lambda: f"{server.scrape().by('state', 'gunicorn_workers')}{server.log}",
    )


def new_master(server: PromgunProcess) -> tuple[int, int]:
    """Send SIGUSR2 to the master that was started; return its pid and the new one's once both have their workers."""
    before, old = server.master_pid, server.process.pid
    server.send_signal(signal.SIGUSR2, old)
    new = wait_until(lambda: server.master_pid if server.master_pid != before else None)
    settled(server, 4)
    return old, new


def burn(server: PromgunProcess, master: int) -> None:
    """Have a master use CPU: it forks a worker for each that is killed."""
    for _ in range(5):
        worker = wait_until(lambda: server.workers(master))[0]
        os.kill(worker, signal.SIGKILL)
        settled(server, 4)


def test_no_counter_sinks_in_the_life_of_a_server() -> None:
    options = ("-k", "gthread", "--threads", "2", "--max-requests", "15", "--graceful-timeout", "5")
    with PromgunProcess(*options, app="probe:app", workers=2) as server:
        address = server.address
        with Watch(server.metrics_address) as watch:
            load(address, 40, path="/ok", keepalive=False)
            os.kill(server.workers()[0], signal.SIGKILL)
            settled(server, 2)
            server.send_signal(signal.SIGTTIN)
            settled(server, 3)
            server.send_signal(signal.SIGTTOU)
            settled(server, 2)
            server.send_signal(signal.SIGHUP)
            server.expect("gunicorn_reloads_total", 1, result="ok")
            settled(server, 2)
            # back to the old master
            old, new = new_master(server)
            burn(server, new)
            before = server.scrape().sum(CPU)
            os.kill(new, signal.SIGTERM)
            settled(server, 2)
            load(address, 20, path="/ok", keepalive=False)
            assert server.fresh().sum(CPU) >= before > 0
            # on to a new one
            old, new = new_master(server)
            burn(server, old)
            os.kill(old, signal.SIGTERM)
            settled(server, 2)
            load(address, 20, path="/ok", keepalive=False)
            wait_until(lambda: server.process.poll() is not None)
        watch.assert_flawless()
        assert watch.pages > 10, "it was read all the time"
