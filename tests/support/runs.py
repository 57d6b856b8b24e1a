"""Directories of runs for tests of the store, and value files as prometheus_client itself writes them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promgun.store import format as fmt
from promgun.store.new_file import Owner
from promgun.store.run_places import create_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from promgun.store.run_directory import RunDirectory

#: Shared memory, and the folder for temporary files: tmpfs and a disk, as a rule.
PLACES = [place for place in (Path("/dev/shm"), Path(tempfile.gettempdir())) if place.is_dir()]  # noqa: S108 - same


@contextlib.contextmanager
def private_run(place: Path, *, second: bool = False) -> Iterator[RunDirectory]:
    """Give a run's directory of this process's own, gone afterwards; with a ``second`` client directory."""
    outer = Path(tempfile.mkdtemp(prefix="pg-run-", dir=place))
    run = create_private(Owner(), [outer])
    if second:
        run.second_client = outer / "named"
        run.second_client.mkdir()
    try:
        yield run
    finally:
        run.close()
        shutil.rmtree(outer, ignore_errors=True)


def key(name: str = "jobs", suffix: str = "_total", **labels: str) -> str:
    """Return the key of a series of the family ``name``."""
    return fmt.series_key(name, name + suffix, labels, "Help.")


class StockFile:
    """A value file that prometheus_client's own class writes: open until :meth:`end`, as that of a living process."""

    def __init__(self, folder: Path, kind: str, process: int | str, values: Mapping[str, float] | None = None) -> None:
        from prometheus_client.mmap_dict import MmapedDict  # noqa: PLC0415 - not before a value class is set

        self.path = folder / f"{kind}_{process}.db"
        self._file: Any = MmapedDict(str(self.path))  # type: ignore[no-untyped-call] # upstream
        self.set(values or {})

    def set(self, values: Mapping[str, float], stamp: float = 0.0) -> None:
        """Write values."""
        for name, value in values.items():
            self._file.write_value(name, value, stamp)

    def end(self) -> None:
        """Let go of the file, as the end of its process would."""
        self._file.close()


def ended(folder: Path, kind: str, process: int | str, values: Mapping[str, float], stamp: float = 0.0) -> Path:
    """Write the file of a process that has ended."""
    file = StockFile(folder, kind, process)
    file.set(values, stamp)
    file.end()
    return file.path


def values_in(data: bytes) -> dict[str, float]:
    """Return what the content of a value file says, by key."""
    cells = memoryview(data[: len(data) // 8 * 8]).cast("d")
    return {name: cells[at // 8] for name, at in fmt.scan(data, fmt.read_used(data)).entries}


def as_user(uid: int, work: Callable[[], Any]) -> None:
    """Do ``work`` in a child that has become another user; it must end well."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def kill_at_call(number: int, work: Callable[[], Any]) -> bool:
    """Do ``work`` in a child that is killed right before its ``number``-th system call; return whether it came so far.

    What counts is each function of ``posix`` and ``fcntl`` that Python calls.
    """
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        _work_until(number, work)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    assert os.WEXITSTATUS(status) == 0
    return False


def _work_until(number: int, work: Callable[[], Any]) -> None:
    calls = 0

    def count(_frame: Any, event: str, function: Any) -> None:
        nonlocal calls
        if event == "c_call" and getattr(function, "__module__", "") in ("posix", "fcntl"):
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        sys.setprofile(count)
        work()
        code = 0
    finally:
        sys.setprofile(None)
        os._exit(code)
