"""Servers under measurement: started, found ready, looked at as a tree of processes, stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared import Tree, tree_of

HERE = Path(__file__).parent
_LISTENING = re.compile(r"Listening at: http://127\.0\.0\.1:(\d+)")
_METRICS = re.compile(r"Metrics at: (http://\S+)")
_START_TIME = 30.0
_STOP_TIME = 15.0
#: Variables of our own environment that must not reach a server that is not ours.
_NOT_INHERITED = ("PROMETHEUS_MULTIPROC_DIR", "PROMGUN_", "GUNICORN_")


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server; the application is found in this folder. ``env`` is added to ours."""

    argv: Sequence[str]
    env: Mapping[str, str]


def gunicorn(python: str, options: Sequence[str], env: Mapping[str, str] | None = None) -> Command:
    """Plain Gunicorn of the environment that ``python`` belongs to."""
    return Command((python, "-m", "gunicorn", *options), env or {})


def promgun(options: Sequence[str], metrics_bind: str = "127.0.0.1:0") -> Command:
    """``promgun run`` of this environment."""
    return Command((sys.executable, "-m", "promgun", "run", "--metrics-bind", metrics_bind, *options), {})


class Server:
    """A running server; ``start_seconds`` passed until it first answered."""

    def __init__(self, command: Command, log: Path) -> None:
        self._log = log
        self._argv = list(command.argv)
        env = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        env |= command.env
        begin = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self._argv, env=env, cwd=HERE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self.url = f"http://127.0.0.1:{self._wait_for(_LISTENING)}"
            self._wait_for_answer()
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.perf_counter() - begin

    @property
    def pid(self) -> int:
        """The master."""
        return self._process.pid

    @property
    def metrics_url(self) -> str:
        """Where promgun serves the page."""
        return self._wait_for(_METRICS)

    def tree(self) -> Tree:
        """The processes as they are now."""
        return tree_of(self.pid)

    def _wait_for(self, pattern: re.Pattern[str]) -> str:
        deadline = time.monotonic() + _START_TIME
        while time.monotonic() < deadline and self._process.poll() is None:
            found = pattern.search(self._log.read_text(errors="replace"))
            if found is not None:
                return found[1]
            time.sleep(0.005)
        raise SystemExit(f"{' '.join(self._argv)} did not start:\n{self._log.read_text(errors='replace')}")

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + _START_TIME
        while time.monotonic() < deadline:
            with suppress(OSError):  # URLError is one
                urllib.request.urlopen(self.url, timeout=_START_TIME).close()
                return
            time.sleep(0.005)
        raise SystemExit(f"{self.url} does not answer:\n{self._log.read_text(errors='replace')}")

    def last_lines(self, number: int = 15) -> str:
        """Return the end of the server's log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-number:])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the master."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """End the server, all of it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIME)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
