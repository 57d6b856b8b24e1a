"""Stores for tests: one of this process, others in processes of their own, and files that something happened to."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promgun.store import format as fmt
from promgun.store.board import BoardView, Cell, Role
from promgun.store.files import ValueFile
from promgun.store.late_upkeep import LateUpkeep
from promgun.store.new_file import Owner
from promgun.store.own_families import OwnFamilies, bucket_texts
from promgun.store.process import ProcessStore
from promgun.store.reader import StoreReader
from promgun.store.run_directory import (
    CLIENT,
    MASTER,
    MULTIPROC,
    SLOTS,
    VERSION,
    RunDirectory,
    directory_identity,
    fill,
)
from promgun.store.run_places import attach
from promgun.store.run_reader import read_views
from promgun.store.series import Series
from promgun.store.values import value_class
from promgun.system.safe_open import open_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pytest


ROOT = Path(__file__).parents[2]
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def pass_time(self, seconds: float = 2.0) -> None:
        """Let time pass, by default long enough for the next try to store."""
        self.now += seconds


@dataclass
class Warnings:
    """What a store warned of."""

    texts: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> None:
        """Take a warning in."""
        self.texts.append(text)


@dataclass
class Opened:
    """A store of this process with what it is watched by."""

    store: ProcessStore
    clock: Clock
    warnings: Warnings

    def retry(self) -> None:
        """Let the store try again what it could not do."""
        self.clock.pass_time()
        self.store.retry()


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """Give a folder that every user may enter: pytest's are for their own user alone."""
    path = Path(tempfile.mkdtemp(prefix="test-store-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def opened(path: Path, role: Role = Role.OTHER, *, forks: bool = False) -> Iterator[Opened]:
    """Open a run's directory, made in ``path`` if need be, as a process of its own with this role would have it; what
    it takes and its descriptors are free again afterwards.

    Without ``forks`` it does not hear of forks, so that it is gone at the end.
    """
    before = os.environ.get(VARIABLE)
    clock, warnings = Clock(), Warnings()
    store = ProcessStore(warnings, clock)
    store._registered = not forks
    directory = open_directory(path)
    store.open(directory)
    store.role = role
    try:
        yield Opened(store, clock, warnings)
    finally:
        release(store)
        directory.close()
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def release(store: ProcessStore) -> None:
    """Let go of all that a store holds, as the end of its process would."""
    store.flush()
    for file in store._files.values():
        file.close()
    store._files.clear()
    if store._home is not None:
        # The process that signed the board is gone: nobody takes over the slot of one that lives.
        store.board.cells[Cell.PROCESS_START] += 1
        store._home.close()
        store._home, store._upkeep = None, LateUpkeep()
    if store._claims._own is not None:
        store._claims._own.release()
        store._claims._own = None


def open_directory(path: str | Path, owner: Owner | None = None) -> RunDirectory:
    """Return the run's directory ``path`` as another master of that run would have it; it is made if it is none yet."""
    path, owner = Path(path), owner or Owner()
    path.mkdir(exist_ok=True)
    folder_fd = open_folder(path)
    try:
        if not (path / VERSION).exists():
            fill(folder_fd, owner, None)
        identity = directory_identity(folder_fd)
    finally:
        os.close(folder_fd)
    return attach(path, owner, identity, private=False)


def slots_of(path: str | Path) -> Path:
    """Return where the workers of a run write."""
    return Path(path) / SLOTS


def master_of(path: str | Path) -> Path:
    """Return where the masters of a run write."""
    return Path(path) / MASTER


def client_of(path: str | Path) -> Path:
    """Return what ``PROMETHEUS_MULTIPROC_DIR`` names in a run."""
    return Path(path) / CLIENT / MULTIPROC


# ---- what a store holds


def read_all(path: Path, reader: StoreReader | None = None) -> list[Series]:
    """Return every series of a run, ours and the application's, with nothing folded."""
    reading = (reader or StoreReader(path)).read(lambda *_: {})
    return [*own_series(reading.own), *reading.series]


def own_series(own: OwnFamilies) -> Iterator[Series]:
    """Yield each number of our own families as a series, buckets not cumulative."""
    for name, names, is_histogram in own:
        for values, (bounds, numbers) in own.rows_of(name, names, histogram=is_histogram).items():
            labels = tuple(zip(names, values, strict=True))
            if not is_histogram:
                yield Series(name.removesuffix("_total"), "counter", "", name, labels, "", names, numbers[0])
                continue
            for text, number in zip(bucket_texts(bounds), numbers[:-1], strict=True):
                bucket = tuple(sorted((*labels, ("le", text))))
                yield Series(name, "histogram", "", f"{name}_bucket", bucket, "", names, number)
            yield Series(name, "histogram", "", f"{name}_sum", labels, "", names, numbers[-1])


def totals(path: Path, reader: StoreReader | None = None) -> dict[str, float]:
    """Return what our reader makes of a run: value by sample name and labels."""
    return {
        f"{item.sample}{{{','.join(f'{k}={v}' for k, v in item.labels)}}}": item.value
        for item in sorted(read_all(path, reader), key=lambda item: (item.sample, item.labels))
    }


def stock_totals(path: Path) -> dict[str, float]:
    """Return what prometheus_client's own collector makes of the application's metrics of a run, spelled as in
    :func:`totals`.

    Its histogram buckets are cumulative; see :func:`page_totals` for ours.
    """
    return stock_samples(client_of(path))


def stock_samples(folder: Path) -> dict[str, float]:
    """Return what prometheus_client's own collector makes of the files in a folder."""
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - not before a value class is set

    return samples(MultiProcessCollector(None, str(folder)).collect())  # type: ignore[no-untyped-call] # upstream


def page_totals(path: Path) -> dict[str, float]:
    """Return the families of a run as our page shows them, without what promgun adds."""
    from promgun.collect.families import build_family  # noqa: PLC0415 - imports prometheus_client
    from promgun.store.reader import families_of  # noqa: PLC0415 - same

    return samples(build_family(name, series) for name, series in families_of(read_all(path)).items())


def boards(path: Path) -> list[BoardView]:
    """Return the boards of a run as readers see them: masters' (negative), then those of slots."""
    return list(read_views(path))


def worker_boards(path: Path) -> list[BoardView]:
    """Return the boards of slots alone."""
    return [view for view in boards(path) if view.slot > 0]


def samples(families: Any) -> dict[str, float]:
    """Return every sample of families: value by name and labels."""
    found: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            key = f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}"
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return dict(sorted(found.items()))


def key_of(number: int | str, kind: str = "c") -> str:
    """Return the key of a counter series; all numbers below 10 have keys of one length."""
    return fmt.series_key(kind, f"{kind}_total", {"n": str(number)}, "Help.")


def write_file(path: Path, values: Mapping[str, float]) -> None:
    """Write a value file through the class that owns files."""
    file = ValueFile(path, Owner())
    for index, value in zip(file.indexes(list(values)), values.values(), strict=True):
        file.cells[index] = value
    file.close()


def read_values(path: Path) -> dict[str, float]:
    """Return what a value file holds, with nothing but the format."""
    data = path.read_bytes()
    cells = memoryview(data[: len(data) // 8 * 8]).cast("d")
    return {key: cells[at // 8] for key, at in fmt.scan(data, fmt.read_used(data)).entries}


# ---- processes


def in_fresh_interpreter(function: Callable[..., Any], *arguments: Any, timeout: float = 120, **env: str) -> Any:
    """Call a function of a test module in an interpreter of its own and return what it returns, by way of JSON.

    Fails with its output when it raises, hangs or is killed.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_")}
    finished = subprocess.run(
        [
            sys.executable,
            "-c",
            "from tests.support.store_fixtures import run_here; run_here()",
            function.__code__.co_filename,
            function.__qualname__,
            json.dumps(arguments, default=str),
        ],
        cwd=ROOT,
        env=inherited | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert finished.returncode == 0, f"exit code {finished.returncode}: {finished.stdout}{finished.stderr}"
    assert not finished.stderr, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def run_here() -> None:
    """The other end of :func:`in_fresh_interpreter`."""
    path, name, arguments = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("called", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["called"] = module
    spec.loader.exec_module(module)
    result = getattr(module, name)(*json.loads(arguments))
    sys.stdout.flush()
    print(json.dumps(result), flush=True)


def fork(work: Callable[[], Any]) -> int:
    """Fork a child that does ``work`` and ends, with 1 if that raised; return its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        if code:
            import traceback  # noqa: PLC0415 - only on the way out

            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code)


def wait_for(*pids: int) -> None:
    """Wait for children, each of which must end well."""
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, f"{pid}: {os.waitstatus_to_exitcode(status)}"


# ---- foreign entries

OBSTACLES: Mapping[str, Callable[[Path], None]]


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        # The name is bound from within its directory: a socket's path has 107 bytes at most.
        here = os.getcwd()
        os.chdir(path.parent)
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


def _make_live_link(path: Path) -> None:
    target = path.with_name("precious.txt")
    target.write_text("precious")
    path.symlink_to(target)


OBSTACLES = {
    "directory": lambda path: path.mkdir(),
    "fifo": os.mkfifo,
    "socket": _make_socket,
    "dangling link": lambda path: path.symlink_to(path.with_name("nowhere")),
    "live link": _make_live_link,
}


def damaged_contents(good: bytes) -> Mapping[str, bytes]:
    """Return contents that no value file should have, made from one that is fine where they resemble one."""
    return {
        "empty": b"",
        "two bytes": good[:2],
        "header only, cut": good[:5],
        "garbage": bytes((i * 89 + 31) % 256 for i in range(5000)),
        "text": b"This is not a store.\n" * 100,
        "sqlite": b"SQLite format 3\0" + bytes(4000),
        "zeroed": bytes(len(good)),
        "negative end": fmt.encode_header(-5) + good[8:],
        "future version": b"promgun9" + bytes(range(256)) * 20,
    }


def flips(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield every copy of ``data`` in which one bit is wrong, with the byte that it is in."""
    for position in range(len(data)):
        for bit in range(8):
            yield position, data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]


def descriptors() -> int:
    """Return how many descriptors this process has open, without those that only wait for the garbage collector."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def sum_of(page: Mapping[str, float], prefix: str) -> float:
    """Return the sum of the samples whose spelling begins so."""
    return sum(value for key, value in page.items() if key.startswith(prefix))


def names(entries: Sequence[os.DirEntry[str]] | Iterator[os.DirEntry[str]]) -> list[str]:
    """Return the sorted names of directory entries."""
    return sorted(entry.name for entry in entries)


@contextlib.contextmanager
def worker(path: Path) -> Iterator[Opened]:
    """The store of a worker in the lowest free slot."""
    with opened(path, Role.WORKER) as found:
        assert found.store.own_slot() is not None
        yield found


def use(store: ProcessStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have prometheus_client use the values of a store for one test."""
    monkeypatch.setattr("prometheus_client.values.ValueClass", value_class(store.app.values))


def published(path: str | Path, role: Role = Role.OTHER) -> ProcessStore:
    """Begin as a process whose prometheus_client uses our values: only for a fresh interpreter."""
    store = ProcessStore()
    store.open(open_directory(path))
    store.role = role
    store.app.publish()
    return store


def move_in(store: ProcessStore) -> None:
    """Let a store try again at once."""
    store.retry_now()
