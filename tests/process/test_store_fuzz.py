"""Nonsense in the board's cells and in value files of living workers: no request, boot or master's loop fails of it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import struct
import time
from pathlib import Path

import pytest

from promgun.store.board import SIZE, Cell
from tests.support.harness import PromgunProcess, wait_until
from tests.support.http_client import load, send

pytestmark = pytest.mark.unmeasured("it runs for a fixed time, and measuring makes it do less")

SECONDS = 2.0
NUMBERS = (2**63 - 1, -(2**63), -1, 1, 0, 2**62, 10**18)
#: Cells that were each seen to end a master, a boot or a request.
FIRST = (Cell.BUSY_BASE, Cell.CPU_USER_BASE, Cell.CPU_WAIT, Cell.EDITION, Cell.ERRORS_NO_SPACE, Cell.WORKED, Cell.PID)


KINDS = ("counter", "histogram", "summary")


def scribble(slots: Path, randomly: random.Random, cell: int | None) -> str:
    """Write nonsense into a file of a worker; return what was done."""
    slot = randomly.choice(("1", "2"))
    name = slot if cell is not None else randomly.choice((slot, slot, slot, *(f"{slot}.{k}" for k in KINDS)))
    path = slots / name
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDWR)
        try:
            if name == slot and (cell is not None or randomly.random() < 0.8):
                at = 8 * (randomly.randrange(1, SIZE // 8) if cell is None else cell)
                data = struct.pack("=q", randomly.choice(NUMBERS))
            else:
                at = randomly.randrange(min(os.fstat(fd).st_size, 8192) - 8)
                data = randomly.randbytes(randomly.choice((1, 4, 8)))
            os.pwrite(fd, data, at)
        finally:
            os.close(fd)
        return f"{data!r} at {at} of {name}"
    return "nothing"


def test_nonsense_in_the_files_of_living_workers(worker_type: str) -> None:
    randomly = random.Random(worker_type)
    threads = ("--threads", "4") if worker_type == "gthread" else ()
    with PromgunProcess("-k", worker_type, *threads, app="counting:app", workers=2) as server:
        assert load(server.address, 20, path="/book", keepalive=False) == {200: 20}
        master, done = server.master_pid, []
        slots = Path(server.sandbox.runs()[0]["store"]) / "slots"
        cells = [int(cell) for cell in FIRST]
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or cells:
            done.append(scribble(slots, randomly, cells.pop() if cells else None))
            assert load(server.address, 2, path="/book", keepalive=False) == {200: 2}, done[-1]
            if len(done) % 5 == 0:
                assert send(server.metrics_address, path="/metrics").status == 200, done[-5:]
            if len(done) == len(FIRST):
                server.send_signal(signal.SIGHUP)
            assert server.process.poll() is None, done[-1]
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.log.count("Handling signal: hup") == 2, deadline=20)
        wait_until(
            lambda: len(server.workers()) == 2 and server.scrape().value("gunicorn_workers", state="booted") == 2,
            deadline=30,
            message=lambda: f"{done[-20:]}: {server.log}",
        )
        assert server.master_pid == master
        page = server.scrape()
        assert page.value("gunicorn_up") == 1
        ours = [sample for sample in page.samples if sample.name.startswith(("gunicorn_", "promgun_"))]
        assert [sample for sample in ours if not sample.value >= 0] == []
        assert "Traceback" not in server.log, server.log
