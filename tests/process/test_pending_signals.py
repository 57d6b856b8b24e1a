"""Signals that come faster than the master handles them."""

from __future__ import annotations

import os
import signal
import time

from tests.support.harness import PromgunProcess, wait_until

#: Each reload takes a while, as with an application that is loaded in the configuration.
SLOW = "import time\ntime.sleep(0.5)\n"
SIGNALS = "gunicorn_master_signals_total"


def hang_up(server: PromgunProcess, times: int) -> None:
    """Send SIGHUP so often, each far enough from the last one for the kernel not to merge them."""
    for _ in range(times):
        os.kill(server.master_pid, signal.SIGHUP)
        time.sleep(0.04)


def test_pending_reloads_become_one_and_sigterm_goes_first() -> None:
    with PromgunProcess("--graceful-timeout", "5", config=SLOW) as server:
        hang_up(server, 12)
        server.expect(SIGNALS, 12, signal="hup")
        reloads = server.fresh().sum("gunicorn_reloads_total", result="ok")
        assert 1 <= reloads <= 4, reloads
        wait_until(lambda: set(server.scrape().by("state", "gunicorn_workers").values()) == {1})
        hang_up(server, 12)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 5
        assert server.log.count("Handling signal: hup") <= 8, server.log
