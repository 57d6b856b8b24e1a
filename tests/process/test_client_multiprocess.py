"""prometheus_client's own multiprocess tests, with our value class in the place of its own.

Its source distribution carries the file; it is fetched for the test and kept nowhere. Upstream makes "a process" of a
function that returns a pid; here each is a store of its own, which takes the next slot, and a pid that changes is a
fork.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from promgun.store.board import Role
from promgun.store.process import ProcessStore
from promgun.store.values import SlotValue, value_class
from tests.support.store_fixtures import ROOT, open_directory, release

_LABEL = 'asserts the label pid="123"; the label names the slot (pid="slot1"), which the next owner keeps'
_FILE = "removes gauge_live*_123.db by its pid; the file is named by the slot, and removed with its owner"
#: What cannot pass, because it spells pids: the reason stands in the documentation, too.
SPELLS_PIDS = {
    "test_gauge_all": _LABEL,
    "test_gauge_liveall": _LABEL,
    "test_collect": _LABEL,
    "test_gauge_livemin": _FILE,
    "test_gauge_livemax": _FILE,
    "test_gauge_livesum": _FILE,
    "test_gauge_livemostrecent": _FILE,
    "test_initialization_detects_pid_change": "asserts the file names counter_0.db and counter_1.db",
}

CONFTEST = """
from tests.process.test_client_multiprocess import put_in_place

put_in_place()
"""


def put_in_place() -> None:
    """Make ``MultiProcessValue`` of prometheus_client a factory of ours; called by the tests' conftest."""
    from prometheus_client import values  # noqa: PLC0415 - only in the interpreter that runs the tests

    values.MultiProcessValue = partial(slot_values, values._multi_process_cleanups)


class Process:
    """What upstream takes for a process: a store, which forks whenever the identifier changes."""

    def __init__(self, identifier: Callable[[], int]) -> None:
        self.store = self._new_store()
        self._identifier = identifier
        self._identity = identifier()
        self._parents: list[ProcessStore] = []
        self._run: Path | None = None

    @staticmethod
    def _new_store() -> ProcessStore:
        store = ProcessStore()
        store._registered = True
        return store

    def follow(self) -> None:
        """Notice a fork; open the store of the test that is running."""
        if self.store.directory is None:
            named = os.environ["PROMETHEUS_MULTIPROC_DIR"]
            # One run for all "processes" of a test.
            self._run = Path(f"{named}-run")
            directory = open_directory(self._run)
            directory.second_client = Path(named)
            self.store.open(directory)
            self.store.role = Role.OTHER
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = named
        now = self._identifier()
        if now != self._identity:
            self._identity = now
            # The parent lives on, and holds its slot.
            parent = self._new_store()
            for held in ("_home", "_claims", "_files"):
                mine, new = getattr(self.store, held), getattr(parent, held)
                setattr(parent, held, mine)
                setattr(self.store, held, new)
            for store in (parent, self.store):
                store.in_files.files = store._files
            self._parents.append(parent)
            self.store._detach()

    def clean_up(self) -> None:
        """End, and the processes that it was forked from too."""
        for store in (self.store, *self._parents):
            release(store)
        self._parents.clear()
        if self.store.directory is not None:
            self.store.directory.close()
            self.store.directory = None
        if self._run is not None:
            shutil.rmtree(self._run, ignore_errors=True)
            self._run = None


def slot_values(
    cleanups: list[Callable[[], None]], process_identifier: Callable[[], int] = os.getpid
) -> type[SlotValue]:
    """Return a value class as another process has it."""
    process = Process(process_identifier)
    cleanups.append(process.clean_up)

    class Followed(value_class(process.store.app.values)):  # type: ignore[misc] # made at run time
        """Our value, told of forks by hand."""

        __slots__ = ()

        def __init__(self, *arguments: Any, **more: Any) -> None:
            process.follow()
            super().__init__(*arguments, **more)

        def inc(self, amount: float) -> None:
            process.follow()
            super().inc(amount)

        def set(self, value: float, timestamp: float | None = None) -> None:
            process.follow()
            super().set(value, timestamp)

        def get(self) -> float:
            process.follow()
            return float(super().get())

    return Followed


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with upstream's test file of the installed version, and our conftest."""
    installed = version("prometheus_client")
    folder = tmp_path_factory.mktemp("upstream")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--dest",
        str(folder),
    ]
    fetched = subprocess.run(
        [*command, f"prometheus_client=={installed}"], capture_output=True, text=True, timeout=100, check=False
    )
    archives = list(folder.glob("*.tar.gz"))
    if fetched.returncode or not archives:
        reason = f"the source of prometheus_client {installed} cannot be fetched: {fetched.stderr[-500:]}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with tarfile.open(archives[0]) as archive:
        (member,) = [found for found in archive.getmembers() if found.name.endswith("/tests/test_multiprocess.py")]
        content = archive.extractfile(member)
        assert content is not None
        (folder / "test_multiprocess.py").write_bytes(content.read())
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return folder


def run_upstream(folder: Path, *arguments: str) -> tuple[set[str], set[str], str]:
    """Run upstream's tests; return the names of those that passed, those that failed, and the output."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PROMETHEUS_", "PYTEST_"))}
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:randomly", "-p", "no:cacheprovider", "--tb=short", *arguments],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    outcomes = {
        outcome: set(re.findall(rf"::(test_\w+) {outcome}", finished.stdout)) for outcome in ("PASSED", "FAILED")
    }
    return outcomes["PASSED"], outcomes["FAILED"], finished.stdout + finished.stderr


def test_upstreams_own_tests_pass_with_our_values(upstream: Path) -> None:
    passed, failed, output = run_upstream(upstream)
    assert failed == SPELLS_PIDS.keys() & (passed | failed), output
    assert len(passed) >= 20
    assert {"test_counter_adds", "test_counter_across_forks", "test_histogram_adds", "test_gauge_mostrecent"} <= passed


def test_upstreams_own_tests_can_fail(upstream: Path, tmp_path: Path) -> None:
    """The same with a value class that loses updates: the tests do see which class they run with."""
    broken = tmp_path
    (broken / "test_multiprocess.py").write_bytes((upstream / "test_multiprocess.py").read_bytes())
    (broken / "pytest.ini").write_text("[pytest]\n")
    (broken / "conftest.py").write_text(
        CONFTEST + "from promgun.store.values import SlotValue\nSlotValue.inc = lambda self, amount: None\n"
    )
    _, failed, output = run_upstream(broken, "-k", "adds or forks")
    assert failed == {"test_counter_adds", "test_summary_adds", "test_histogram_adds", "test_counter_across_forks"}, (
        output
    )
