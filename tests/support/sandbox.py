"""A place where a test starts processes, and that tells afterwards what they left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

T = TypeVar("T")

#: The types of workers that ``promgun run`` serves WSGI with.
WORKER_TYPES = ("sync", "gthread", "gevent", "eventlet")
APPS = Path(__file__).parents[1] / "apps"
#: Seconds after which something hangs; what is slow on a busy machine takes much less.
DEADLINE = 60.0
#: Where an interpreter finds the module that writes down which directories it makes.
RECORDING = Path(__file__).parent / "stores_made"
#: The variable that marks every process of a sandbox, whatever session or process group it moved to.
MARK = "TEST_SANDBOX"
#: Variables that Gunicorn and promgun read, and that the surroundings of the tests must not decide.
_FOREIGN = re.compile(r"(PROMGUN_|GUNICORN_|PROMETHEUS_|LISTEN_|(PORT|WEB_CONCURRENCY|FORWARDED_ALLOW_IPS|COLUMNS)$)")


def wait_until(
    predicate: Callable[[], T | None], deadline: float = DEADLINE, message: str | Callable[[], str] = ""
) -> T:
    """Poll until the predicate is true, and return what it said; an ``OSError`` in it means "not yet".

    The longer it takes the rarer it asks, since to ask may cost more than what is waited for. Raises
    ``AssertionError`` with the message after ``deadline`` seconds.
    """
    start = time.monotonic()
    said: object = None
    while (waited := time.monotonic() - start) < deadline:
        try:
            if answer := predicate():
                return answer
            said = answer
        except OSError as error:
            said = error
        time.sleep(min(max(0.02, waited / 10), 0.25))
    text = message() if callable(message) else message
    raise AssertionError(f"not within {deadline:g} s: {text or 'the condition'} (last: {said!r})")


def is_alive(pid: int) -> bool:
    """Tell whether a process runs: a zombie, which only waits to be reaped, does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Sandbox:
    """A directory of its own, an environment of its own, and a mark on every process started in it.

    Nothing may be left in it at the end of a ``with`` block, unless the test is about that (``clean=False``).
    Where ``records_stores`` is set, a store in shared memory counts from when it is made, not only once it is in the
    list of runs. What ends late is waited for ``patience`` seconds.
    """

    def __init__(self, *, clean: bool = True, records_stores: bool = False, patience: float = DEADLINE / 2) -> None:
        # Short, for Unix sockets hold 107 bytes of path; open, for --user needs to look inside.
        self.directory = Path(tempfile.mkdtemp(prefix="pg-"))
        self.directory.chmod(0o755)
        self.runtime = self._subdirectory("run", 0o700)
        self.session = self._subdirectory("xdg", 0o700)
        self.temporary = self._subdirectory("tmp", 0o1777)
        self.mark = uuid.uuid4().hex
        self.clean = clean
        self.records_stores = records_stores
        self._patience = patience
        self._record = self.directory / "stores-made"
        self._stores: set[Path] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = self.close()
        if error is None and self.clean:
            assert not left, f"left behind: {left}"

    def _subdirectory(self, name: str, mode: int) -> Path:
        path = self.directory / name
        path.mkdir()
        path.chmod(mode)
        return path

    def environment(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a process in here."""
        inherited = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
        own = {
            "PROMGUN_RUNTIME_DIR": str(self.runtime),
            "XDG_RUNTIME_DIR": str(self.session),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join([str(APPS), str(self.directory)]),
            MARK: self.mark,
        }
        if self.records_stores:
            own["PYTHONPATH"] = os.pathsep.join([str(RECORDING), own["PYTHONPATH"]])
            own["TEST_STORES_MADE"] = str(self._record)
        return inherited | own | dict(changes or {})

    def run(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        deadline: float = 2 * DEADLINE,
    ) -> subprocess.CompletedProcess[str]:
        """Run a Python command line to its end and return exit code and output.

        The output goes to files: a pipe would be held open by what the command leaves running.
        """
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            finished = subprocess.run(
                [python, *args],
                cwd=self.directory,
                env=self.environment(env),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                timeout=deadline,
                check=False,
                start_new_session=True,
            )
            stdout.seek(0)
            stderr.seek(0)
            return subprocess.CompletedProcess(finished.args, finished.returncode, stdout.read(), stderr.read())

    def write(self, name: str, text: str) -> Path:
        """Write a file into the sandbox, e.g. ``gunicorn.conf.py``; return its path."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def processes(self) -> list[psutil.Process]:
        """Return the living processes that were started in here."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            return False

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs registered in here, oldest pid first; their stores must be gone at the end."""
        entries = []
        for path in sorted(self.runtime.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):
                entries.append(json.loads(path.read_text()))
        self._stores |= {Path(entry["store"]) for entry in entries}
        return entries

    def _recorded(self) -> set[Path]:
        """Return the stores that were made in here; one gets its name without the dot when it is complete."""
        lines = self._record.read_text().splitlines() if self._record.exists() else []
        made = [Path(line) for line in lines if "promgun-" in line]
        return {*made, *(path.with_name(path.name.removeprefix(".")) for path in made)}

    def left_behind(self) -> list[str]:
        """Return what is still here: processes, entries in the list of runs, stores, sockets, directories."""
        self._stores |= self._recorded()
        processes = [f"process {process.pid}" for process in self.processes()]
        runs = [path for path in self.runtime.iterdir() if path.name != "lock"]
        private = [store for store in self._stores if store.exists() and not store.is_relative_to(self.directory)]
        sockets = [path for path in self.directory.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
        paths = [*runs, *private, *sockets, *self.temporary.iterdir()]
        return processes + [str(path) for path in paths]

    def close(self) -> list[str]:
        """End every process, remove the directory, and return what was left behind before that."""
        left: list[str] = []
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.left_behind(), deadline=self._patience if self.clean else 0.1)
        left = self.left_behind()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.processes())
        for path in [*self._stores, self.directory]:
            shutil.rmtree(path, ignore_errors=True)
        return left
