"""A real server on a file system that is full, out of inodes, or not to be written: it serves, and catches up later.

The file system is a tmpfs of 1 MB in a mount namespace of the server's own.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import load, send
from tests.support.page import Page

pytestmark = pytest.mark.needs_root("mount a file system")

REQUESTS = "gunicorn_requests_total"
ERRORS = "promgun_store_errors_total"
WARNING = re.compile(r"\[(\d+)\] \[WARNING\] Metrics cannot be stored \(([^:]*): ([^)]*)\)")
SIZE = 1 << 20

#: Goes on in a mount namespace where ``sys.argv[1]`` is a small tmpfs, filled as ``sys.argv[3:5]`` say.
CONFINE = """
import ctypes, os, sys
store, options, blocks_full, inodes_left = sys.argv[1:5]
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
check(libc.unshare(CLONE_NEWNS))
check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
check(libc.mount(b"tmpfs", store.encode(), b"tmpfs", 0, options.encode()))
if blocks_full == "1":
    with open(store + "/filler", "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            pass
if inodes_left != "-":
    free = os.statvfs(store).f_favail
    for number in range(free - int(inodes_left)):
        open(f"{store}/inode-{number}", "wb").close()
os.execv(sys.executable, [sys.executable, "-m", "promgun", "run", *sys.argv[5:]])
"""

#: An application whose series fill any file system.
GROWING = """
from prometheus_client import Counter, Gauge, Histogram

SERIES = Counter("growing", "Series of one path each.", ["path"])
SECONDS = Histogram("growing_seconds", "A histogram of one path each.", ["path"])
LATE = Gauge("late", "A kind of its own, with a file of its own.", ["path"], multiprocess_mode="sum")


def app(environ, start_response):
    path = environ["PATH_INFO"]
    SERIES.labels(path).inc()
    SECONDS.labels(path).observe(0.5)
    if path.startswith("/late"):
        LATE.labels(path).inc()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


class Confined(PromgunProcess):
    """``promgun run --metrics-dir`` on a tmpfs of 1 MB; ready when it serves, whatever it can show."""

    def __init__(
        self,
        *args: str,
        sandbox: Sandbox,
        app: str = "probe:app",
        workers: int = 2,
        full: bool = False,
        inodes_left: int | None = None,
    ) -> None:
        self.store = sandbox.directory / "store"
        self.store.mkdir()
        confine = (
            "-c",
            CONFINE,
            str(self.store),
            f"size={SIZE},nr_inodes=60,mode=700",
            str(int(full)),
            "-" if inodes_left is None else str(inodes_left),
        )
        arguments = ("--metrics-dir", str(self.store), *args)
        super().__init__(*arguments, command=confine, app=app, sandbox=sandbox, workers=workers)
        self._expected_workers = workers

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"exit code {self.process.returncode} before it was ready: {self.log}")
        return (
            bool(self.listening())
            and self.log.count("Booting worker") >= self._expected_workers
            and send(self.address, path="/ok").status == 200
        )

    @property
    def inside(self) -> Path:
        """The store as the server sees it."""
        return Path(f"/proc/{self.process.pid}/root{self.store}")

    def fill(self) -> None:
        """Use up every block that is left."""
        with (self.inside / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        assert os.statvfs(self.inside).f_bavail == 0

    def use_up_inodes(self) -> None:
        """Use up every inode that is left."""
        with contextlib.suppress(OSError):
            for number in range(100):
                (self.inside / f"inode-{number:03}").touch(exist_ok=True)
        assert os.statvfs(self.inside).f_favail == 0

    def free(self) -> None:
        """Let there be space and inodes again."""
        for path in [self.inside / "filler", *self.inside.glob("inode-*")]:
            path.unlink(missing_ok=True)

    def has_warned(self, times: int) -> bool:
        """Tell whether there were as many warnings."""
        return len(self.warnings()) >= times

    def warnings(self) -> list[tuple[int, str]]:
        """Return who warned, and of what."""
        return [(int(pid), reason) for pid, reason, _ in WARNING.findall(self.log)]


@contextlib.contextmanager
def unharmed(server: Confined) -> Iterator[None]:
    """Assert that no process of the server dies in the block, and that the page is always served."""
    workers, metrics = sorted(server.workers()), wait_until(server.metrics_pid)
    yield
    assert send(server.metrics_address, path="/metrics").status == 200
    assert sorted(server.workers()) == workers, server.log
    assert server.metrics_pid() == metrics
    assert server.process.poll() is None
    assert "Traceback" not in server.log
    assert server.log.count("Booting worker") == len(workers)


def serve(server: Confined, count: int, path: str = "/ok") -> int:
    """Send requests, each of which must be answered with 200; return how many."""
    assert load(server.address, count, path=path, concurrency=4, keepalive=False) == {200: count}
    return count


def caught_up(server: Confined, sent: int) -> Page:
    """Wait until the page shows every request that was answered, in every family; assert that it shows no more."""
    families = ("gunicorn_request_duration_seconds_count", "gunicorn_response_size_bytes_count", REQUESTS)
    for name in (*families, "gunicorn_worker_requests_total"):
        server.expect(name, sent)
    page = server.fresh()
    assert "" not in page.by("worker_id", "gunicorn_worker_requests_total")
    return page


def all_booted(server: Confined, workers: int) -> bool:
    page = server.scrape()
    return page.value("gunicorn_workers", state="booted") == page.value("gunicorn_workers", state="target") == workers


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_full_at_boot(sandbox: Sandbox, kind: str) -> None:
    with Confined("-k", kind, "--threads", "3", sandbox=sandbox, full=True) as server:
        with unharmed(server):
            # one was asked to see whether it serves
            sent = 1 + serve(server, 60)
            wait_until(server.warnings)
        with unharmed(server):
            server.free()
            wait_until(lambda: all_booted(server, 2), message=lambda: server.scrape().text)
            caught_up(server, sent)
            sent += serve(server, 40)
            page = caught_up(server, sent)
        assert page.sum(ERRORS, reason="no_space") > 0
        assert page.sum(ERRORS, reason="permission") == page.sum(ERRORS, reason="corrupt") == 0
        assert page.sum("gunicorn_worker_requests_in_progress") == 0
        once_each(server, "No space left on device")


def once_each(server: Confined, reason: str) -> None:
    """Assert that there was a warning, and of each process one at most."""
    warned = server.warnings()
    assert warned
    assert {found for _, found in warned} == {reason}
    assert len({pid for pid, _ in warned}) == len(warned), warned


#: More label sets than there is room for in the pages that a slot's file has.
MANY = (201, 202, 203, 206, *range(400, 418), *range(421, 427), *range(500, 509))


def test_full_while_serving(sandbox: Sandbox) -> None:
    with Confined(sandbox=sandbox) as server:
        sent = 1 + serve(server, 30)
        caught_up(server, sent)
        with unharmed(server):
            server.fill()
            sent += serve(server, 30)
            # what is there already goes on, also while there is no space
            caught_up(server, sent)
            for status in MANY:
                assert load(server.address, 20, path=f"/status/{status}", concurrency=4) == {status: 20}
            once_each_soon(server)
        with unharmed(server):
            server.free()
            page = caught_up(server, sent + 20 * len(MANY))
            assert page.by("status", REQUESTS) == {"200": sent} | {str(status): 20 for status in MANY}
        assert page.sum(ERRORS, reason="no_space") > 0


def once_each_soon(server: Confined) -> None:
    """Wait for the warning; assert that it is not repeated."""
    wait_until(server.warnings)
    noted = len(server.warnings())
    end = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > end)
    assert len(server.warnings()) <= max(noted, len(server.workers()) + 1)
    once_each(server, "No space left on device")


def test_full_while_growing_and_then_again(sandbox: Sandbox) -> None:
    sandbox.write("growing.py", GROWING)
    with Confined(sandbox=sandbox, app="growing:app", workers=1) as server:
        sent = 1 + serve(server, 20)
        caught_up(server, sent)
        # The file doubles when it grows: the second time more is needed to have it grow again.
        for episode, paths in enumerate((60, 120)):
            with unharmed(server):
                server.fill()
                for number in range(paths):
                    sent += serve(server, 2, f"/{episode}/{number}")
                wait_until(partial(server.has_warned, episode + 1))
            with unharmed(server):
                server.free()
                for name in ("growing_total", "growing_seconds_count"):
                    server.expect(name, sent)
                page = caught_up(server, sent)
                assert page.sum("growing_seconds_sum") == sent / 2
                assert all(page.sum("growing_total", path=f"/{episode}/{number}") == 2 for number in range(paths))
        assert len(server.warnings()) == 2
        assert os.statvfs(server.inside).f_bavail > 0


#: A run's directory, its folders and the master's file take seven.
@pytest.mark.parametrize("left", [8, 10, 12])
def test_out_of_inodes_at_boot(sandbox: Sandbox, left: int) -> None:
    with Confined(sandbox=sandbox, inodes_left=left) as server:
        with unharmed(server):
            sent = 1 + serve(server, 40)
        with unharmed(server):
            server.free()
            wait_until(lambda: all_booted(server, 2), message=lambda: server.scrape().text)
            page = caught_up(server, sent)
        assert page.sum(ERRORS, reason="no_space") > 0
        once_each(server, "No space left on device")


def test_out_of_inodes_while_serving_and_recycling(sandbox: Sandbox) -> None:
    with Confined("--max-requests", "30", sandbox=sandbox) as server:
        sent = 1 + serve(server, 10)
        caught_up(server, sent)
        server.use_up_inodes()
        sent += serve(server, 120)
        server.free()
        wait_until(lambda: all_booted(server, 2), message=lambda: server.scrape().text)
        sent += serve(server, 5)
        # A worker that ends loses what it could not store; these had their files and slots from the start.
        assert "of its series are lost" not in server.log
        page = caught_up(server, sent)
        assert page.sum("gunicorn_worker_exits_total") == page.sum("gunicorn_worker_exits_total", cause="max_requests")
        assert "Traceback" not in server.log


def test_a_worker_that_is_killed_on_a_full_disk_is_replaced(sandbox: Sandbox) -> None:
    with Confined(sandbox=sandbox) as server:
        sent = 1 + serve(server, 20)
        caught_up(server, sent)
        server.fill()
        (victim, *_) = server.workers()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(server.workers()) == 2 and victim not in server.workers())
        sent += serve(server, 20)
        # The files of a slot are there already: its next owner needs no space.
        page = caught_up(server, sent)
        assert page.value("gunicorn_worker_exits_total", cause="killed") == 1
        server.free()
        wait_until(lambda: all_booted(server, 2))


def test_no_permission(sandbox: Sandbox) -> None:
    """The workers' user may not even look into the store for a while: a new kind of file cannot be made."""
    sandbox.write("growing.py", GROWING)
    # Loaded by root: the interpreter may lie where that user cannot import anything.
    with Confined("--user", "nobody", "--preload", sandbox=sandbox, app="growing:app", workers=1) as server:
        wait_until(lambda: all_booted(server, 1))
        sent = 1 + serve(server, 20)
        caught_up(server, sent)
        with unharmed(server):
            owner = server.inside.stat().st_uid
            assert owner != 0
            os.chown(server.inside, 0, 0)
            sent += serve(server, 20, "/late")
            wait_until(server.warnings)
        with unharmed(server):
            os.chown(server.inside, owner, -1)
            server.expect("late", 20)
            page = caught_up(server, sent)
        assert page.value(ERRORS, reason="permission") == 1
        assert page.sum(ERRORS) == 1
        once_each(server, "Permission denied")


@pytest.mark.parametrize("space", ["full", "inodes"])
def test_a_stop_on_a_full_disk_is_clean(sandbox: Sandbox, space: str) -> None:
    with Confined(sandbox=sandbox, full=space == "full", inodes_left=8 if space == "inodes" else None) as server:
        serve(server, 5)
        assert server.stop() == 0
        assert "Traceback" not in server.log
        told = re.findall(r"\[(\d+)\] \[WARNING\] The metrics store had no room .* of its series are lost", server.log)
        assert told
        assert len(set(told)) == len(told), "one line a worker"


@pytest.mark.parametrize("left", [0, 2, 4])
def test_too_few_inodes_for_a_run_are_refused_in_one_line(sandbox: Sandbox, left: int) -> None:
    server = Confined(sandbox=sandbox, inodes_left=left)
    server.start()
    assert server.wait() == 6
    assert "Traceback" not in server.log
    assert "No space left on device" in server.log
    assert str(server.store) in server.log
