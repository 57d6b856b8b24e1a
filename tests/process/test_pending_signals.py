"""Signals that come faster than the master handles them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil

from tests.support.harness import PromgunProcess, wait_until

#: Each reload takes a while, as with an application that is loaded in the configuration.
SLOW = "import time\ntime.sleep(0.5)\n"
SIGNALS = "gunicorn_master_signals_total"


def hang_up(server: PromgunProcess, times: int) -> None:
    """Send SIGHUP so often, each when the last one was delivered: the kernel merges those that are pending."""
    master = psutil.Process(server.master_pid)
    pending = f"/proc/{master.pid}/status"

    def is_delivered() -> bool:
        lines = dict(line.split(":\t", 1) for line in Path(pending).read_text().splitlines())
        waiting = int(lines["ShdPnd"], 16) | int(lines["SigPnd"], 16)
        # It sleeps once more, so Python's handler has run as well.
        return not waiting and master.status() == psutil.STATUS_SLEEPING

    for _ in range(times):
        os.kill(master.pid, signal.SIGHUP)
        wait_until(is_delivered)


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
