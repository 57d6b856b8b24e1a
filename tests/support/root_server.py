"""A server of root's whose workers run as another user, and what that user may try."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import sys
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tests.support.harness import PromgunProcess
from tests.support.http_client import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.sandbox import Sandbox

#: Read by root: what it imports the workers have.
LOADED_BY_ROOT = "import gzip, prometheus_client, prometheus_client.multiprocess\n"
REQUESTS = "gunicorn_requests_total"


def nobody() -> pwd.struct_passwd:
    """The user of the workers."""
    return pwd.getpwnam("nobody")


class RootServer(PromgunProcess):
    """``promgun run --user nobody`` of root's, with a group of its own unless ``group`` is empty."""

    def __init__(
        self,
        *args: str,
        sandbox: Sandbox,
        app: str = "probe:app",
        workers: int = 2,
        group: str = "nogroup",
        env: Mapping[str, str] | None = None,
        config: str = LOADED_BY_ROOT,
    ) -> None:
        given = ("--user", "nobody", *(("--group", group) if group else ()), *args)
        super().__init__(*given, sandbox=sandbox, app=app, workers=workers, env=env, config=config)

    @property
    def run_directory(self) -> Path:
        """The directory of the run."""
        return Path(self.sandbox.runs()[0]["store"])

    def serve(self, count: int, path: str = "/ok") -> int:
        """Send requests that must all be answered with 200; return how many."""
        assert load(self.address, count, path=path, concurrency=2, keepalive=False) == {200: count}
        return count


@contextlib.contextmanager
def running_as(uid: int, code: str, *arguments: object) -> Iterator[IO[str]]:
    """Run Python code as another user without any of root's groups, and give what it prints; it is ended at the end.

    In a fork: the interpreter of the tests may lie where other users cannot look, so what the code imports must have
    been imported already.
    """
    read_fd, write_fd = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code_of_exit = 1
        try:
            os.dup2(write_fd, 1)
            os.setgroups([])
            os.setgid(nobody().pw_gid)
            os.setuid(uid)
            os.chdir("/")
            sys.argv = ["", *map(str, arguments)]
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - until the fork ends
            exec(code, {})  # noqa: S102 - a test's own
            sys.stdout.flush()
            code_of_exit = 0
        except BaseException:  # noqa: BLE001 - the parent must see it, and must not be run twice
            traceback.print_exc()
        finally:
            os._exit(code_of_exit)
    os.close(write_fd)
    try:
        with open(read_fd) as output:
            yield output
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def as_workers(code: str, *arguments: object, uid: int | None = None) -> str:
    """Run Python code to its end as the workers' user would; return what it printed, which ends with ``done``."""
    with running_as(nobody().pw_uid if uid is None else uid, f"{code}\nprint('done')", *arguments) as output:
        said = output.read()
    assert said.endswith("done\n"), "see standard error"
    return said.removesuffix("done\n")


class Precious:
    """A file of root's that must stay as it is."""

    def __init__(self, path: Path, mode: int = 0o640) -> None:
        self.path = path
        path.write_text("precious")
        path.chmod(mode)
        self._before = self._state()

    def _state(self) -> tuple[object, ...]:
        status = os.lstat(self.path)
        return status.st_ino, status.st_uid, status.st_gid, status.st_mode, status.st_size, self.path.read_text()

    def assert_untouched(self) -> None:
        """Fail if anybody changed its content, owner, group or mode."""
        assert self._state() == self._before
