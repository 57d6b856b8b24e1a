"""A real server under test, watched with deadlines and gone at the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.support.http_client import Address, send
from tests.support.page import Page
from tests.support.sandbox import DEADLINE, Sandbox, is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["DEADLINE", "DEMO", "GUNICORN", "PROMGUN", "Page", "PromgunProcess", "Sandbox", "is_alive", "wait_until"]

DEMO = "promgun.demo:app"
PROMGUN = ("-m", "promgun", "run")
GUNICORN = ("-m", "gunicorn")

#: Differs from one collection to the next, so it tells a fresh page from a cached one.
UPTIME = "gunicorn_master_uptime_seconds"
_LISTENING = re.compile(r"Listening at: (\S*) \((\d+)\)")
_METRICS = re.compile(r"Metrics at: (.+) \((\d+)\)")
_METRICS_LINES = re.compile(r"(?:.*Metrics at: .*\n?)+")


class PromgunProcess:
    """``promgun run`` (or ``command``) on free ports, ready when the ``with`` block starts.

    At the end of the block it is stopped by SIGTERM if it still runs, which must give exit code 0; a sandbox
    of its own must then be empty. Any other end is the test's to bring about by :meth:`stop` or :meth:`wait`.
    """

    def __init__(
        self,
        *args: str,
        app: str | None = DEMO,
        command: Sequence[str] = PROMGUN,
        python: str = sys.executable,
        bind: str | None = "127.0.0.1:0",
        metrics: str | None = "127.0.0.1:0",
        config: str | None = None,
        env: Mapping[str, str] | None = None,
        sandbox: Sandbox | None = None,
        workers: int | None = None,
    ) -> None:
        self.sandbox = sandbox or Sandbox()
        self._owns_sandbox = sandbox is None
        self._env = env
        self._serves_metrics = metrics is not None
        self._workers = workers or 1
        self._output = self.sandbox.directory / f"output-{uuid.uuid4().hex[:8]}"
        if config is not None:
            self.sandbox.write("gunicorn.conf.py", config)
        options = {"--bind": bind, "--metrics-bind": metrics, "--workers": workers}
        given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        self.argv = [python, *command, *([app] if app else []), *given, *args]
        self.popen: subprocess.Popen[bytes] | None = None
        self._kept_log = ""

    def __enter__(self) -> Self:
        self.start()
        try:
            wait_until(self._is_ready, message=lambda: f"ready: {self.log}")
        except BaseException as error:
            self._end(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    def start(self) -> None:
        """Start the process without waiting for it to be ready; output goes to a file, never to a pipe."""
        with self._output.open("wb") as output:
            self.popen = subprocess.Popen(
                self.argv,
                cwd=self.sandbox.directory,
                env=self.sandbox.environment(self._env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started: the master, or its launcher under ``--daemon``."""
        assert self.popen is not None, "not started"
        return self.popen

    @property
    def log(self) -> str:
        """All that was printed so far."""
        return self._output.read_text(errors="replace") if self._output.exists() else self._kept_log

    def _is_ready(self) -> bool:
        if self.process.poll() not in {None, 0}:
            raise AssertionError(f"exit code {self.process.returncode} before it was ready: {self.log}")
        if not self.listening():
            return False
        if not self._serves_metrics:
            return len(self.obedient()) >= self._workers
        page = self.scrape() if _METRICS.search(self.log) else Page("")
        return 0 < page.sum("gunicorn_workers", state="target") == page.sum("gunicorn_workers", state="booted")

    def listening(self) -> list[tuple[str, int]]:
        """Return what each master said it listens at, and its pid, in the order of the log."""
        return [(urls, int(pid)) for urls, pid in _LISTENING.findall(self.log)]

    @property
    def addresses(self) -> list[Address]:
        """Where the last master listens."""
        return [parse_address(url) for url in self.listening()[-1][0].split(",")]

    @property
    def address(self) -> Address:
        """The first of the addresses of the application."""
        return self.addresses[0]

    @property
    def metrics_addresses(self) -> list[Address]:
        """Where the metrics endpoint listens, by what was said last: one line for each address, one after another."""
        last = [*_METRICS_LINES.finditer(self.log)][-1]
        return [parse_address(url) for url, _ in _METRICS.findall(last[0])]

    @property
    def metrics_address(self) -> Address:
        """The first of the addresses of the metrics endpoint."""
        return self.metrics_addresses[0]

    @property
    def master_pid(self) -> int:
        """The pid of the last master."""
        return self.listening()[-1][1]

    def metrics_pid(self, master: int | None = None) -> int | None:
        """Return the pid of a master's metrics process, ``None`` while there is none."""
        pids = [child.pid for child in self._children(master) if _is_metrics_process(child)]
        return pids[0] if pids else None

    def workers(self, master: int | None = None) -> list[int]:
        """Return the pids of a master's workers: its children without metrics process and new master."""
        masters = {pid for _, pid in self.listening()}
        return [
            child.pid for child in self._children(master) if child.pid not in masters and not _is_metrics_process(child)
        ]

    def obedient(self) -> list[int]:
        """Return the pids of the workers that a signal reaches.

        Under plain Gunicorn (25.3 to 27.0) a signal that comes between the fork and the worker's own handlers goes to
        the copy of the master's queue and is lost: a stop or a reload then takes the whole graceful timeout.
        """
        return [pid for pid in self.workers() if _has_own_handlers(pid)]

    def _children(self, master: int | None) -> list[psutil.Process]:
        try:
            children = psutil.Process(master or self.master_pid).children()
        except psutil.NoSuchProcess:
            return []
        return [child for child in children if is_alive(child.pid)]

    def scrape(self, query: str = "") -> Page:
        """Return the page of the metrics endpoint; raises ``OSError`` where it does not answer with one."""
        response = send(self.metrics_address, path=f"/metrics{query}")
        if response.status != 200:
            raise ConnectionError(f"{response.status} {response.text}")
        return Page(response.text)

    def dump(self, *args: str) -> Page:
        """Return what ``promgun metrics dump`` says."""
        finished = self.sandbox.run("-m", "promgun", "metrics", "dump", *args, python=self.argv[0])
        assert finished.returncode == 0, finished.stderr
        return Page(finished.stdout)

    def expect(self, name: str, value: float, **labels: str | int) -> None:
        """Wait until the selected samples sum up to ``value``, and assert on a later page that they still do.

        A worker may count a request a moment after its client has the answer.
        """
        page = wait_until(
            lambda: self._page_where(lambda page: page.sum(name, **labels) >= value),
            message=lambda: f"{name}{labels} = {value}, it is {self.scrape().sum(name, **labels)}",
        )
        later = self.fresh(page)
        assert later.sum(name, **labels) == value, f"{name}{labels} is {later.sum(name, **labels)}, not {value}"

    def fresh(self, than: Page | None = None) -> Page:
        """Return a page that was collected after that one, or after now."""
        taken = (than or self.scrape()).sum(UPTIME)
        return wait_until(lambda: self._page_where(lambda page: page.sum(UPTIME) > taken))

    def _page_where(self, holds: Callable[[Page], bool]) -> Page | None:
        page = self.scrape()
        return page if holds(page) else None

    def send_signal(self, number: int, pid: int | None = None) -> None:
        """Send a signal to the last master, or to another process."""
        os.kill(pid or self.master_pid, number)

    def wait(self, deadline: float = DEADLINE) -> int:
        """Wait for the started process to end and return its exit code (negative: by that signal)."""
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline:g} s: {self.log}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM, deadline: float = DEADLINE) -> int:
        """Send a signal to the started process and return its exit code."""
        self.process.send_signal(number)
        return self.wait(deadline)

    def _end(self, error: BaseException | None) -> None:
        failure, code = error, 0
        if error is None:
            try:
                code = self._terminate()
            except AssertionError as late:
                failure = late
        if failure is not None:
            print(f"--- output of {' '.join(self.argv)}\n{self.log}")
            self.process.kill()
            self.sandbox.clean = False
        self._kept_log = self.log
        left = self.sandbox.close() if self._owns_sandbox else []
        self.process.wait()
        if error is None:
            if failure is not None:
                raise failure
            assert code == 0, f"exit code {code}: {self.log}"
            assert not left, f"left behind: {left}: {self.log}"

    def _terminate(self) -> int:
        """Stop every master that still runs; return the started one's exit code, 0 if it had ended."""
        running = self.process.poll() is None
        ours = {process.pid for process in self.sandbox.processes()}
        masters = {self.process.pid, *(pid for _, pid in self.listening())} & ours
        for pid in masters:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not any(is_alive(pid) for pid in masters))
        return self.wait() if running else 0


def _is_metrics_process(process: psutil.Process) -> bool:
    try:
        return any("promgun.endpoint" in word or "promgun/endpoint" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _has_own_handlers(pid: int) -> bool:
    """Tell whether a worker has set its handlers: SIGABRT is the last, and the master has none to inherit."""
    if not psutil.LINUX:
        return True
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGABRT - 1) & 1)


def parse_address(url: str) -> Address:
    """Return the address in a logged URL: ``http://host:port/...``, ``http://[::1]:port``, ``unix:path``."""
    if match := re.fullmatch(r"https?://\[?([^\]/]+?)\]?:(\d+)(/.*)?", url.strip()):
        return match[1], int(match[2])
    return url.strip().removeprefix("http+").removeprefix("unix:")
