"""What the store of a worker takes, and what the first request of a label set costs.

Other benchmarks make their stores here: processes that live, after others that counted and died, on both sides.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from promgun.store.board import Cell, Role
from promgun.store.process import STORE
from promgun.store.run_directory import RunDirectory

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # and +Inf: 12 buckets


class Population(NamedTuple):
    """How many processes live, how many label sets each has used, how many have died before them."""

    processes: int
    sets: int
    recycled: int

    def __str__(self) -> str:
        return f"{self.processes} x {self.sets}, {self.recycled} recycled"


def count(sets: int) -> None:
    """Make the metrics of an application and use each label set, with whatever values prometheus_client has."""
    from prometheus_client import CollectorRegistry, Histogram  # noqa: PLC0415 - after our values are published

    histogram = Histogram("app_seconds", "Time.", ["view"], buckets=BOUNDS, registry=CollectorRegistry())
    for number in range(sets):
        histogram.labels(f"view_{number}").observe(number % 12)


def serve(sets: int) -> None:
    """Count answered requests of so many routes, as a worker does."""
    from promgun.metrics.counters import Counters  # noqa: PLC0415 - same
    from promgun.metrics.defaults import DURATION_BUCKETS, SIZE_BUCKETS  # noqa: PLC0415 - same
    from promgun.metrics.recorder import Recorder  # noqa: PLC0415 - same

    recorder = Recorder(STORE, Counters(STORE, sets), DURATION_BUCKETS, SIZE_BUCKETS)
    for number in range(sets):
        recorder.record("GET", f"/view_{number}", 200, number % 12, 0, number)


@contextmanager
def workers(
    directory: RunDirectory, population: Population, use: Callable[[int], None] = count
) -> Iterator[Callable[[], None]]:
    """Recycle workers on a store, then keep as many alive as the population says; each does ``use`` once.

    The function that the block gets has the living ones do it again.
    """
    STORE.open(directory)
    for first in range(0, population.recycled, population.processes):
        number = min(population.processes, population.recycled - first)
        _release([_worker(population.sets, use) for _ in range(number)])
    alive = [_worker(population.sets, use) for _ in range(population.processes)]

    def again() -> None:
        for worker in alive:
            os.write(worker.end, b"!")
        for worker in alive:
            worker.wait()

    try:
        yield again
    finally:
        _release(alive)


class _Worker(NamedTuple):
    """A living worker: ``end`` ends it when closed, and has it count again when written to."""

    pid: int
    end: int
    ready: int

    def wait(self) -> None:
        """Wait until it has counted."""
        if os.read(self.ready, 1) != b"!":
            raise SystemExit("A worker failed")


def _worker(sets: int, use: Callable[[int], None]) -> _Worker:
    """Fork a worker that has counted and now waits."""
    end_read, end_write = os.pipe()
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(end_write)
            os.close(ready_read)
            STORE.own_slot(Role.WORKER)
            STORE.board.cells[Cell.BOOTED] = time.monotonic_ns()
            use(sets)
            os.write(ready_write, b"!")
            while os.read(end_read, 1):
                use(sets)
                os.write(ready_write, b"!")
        finally:
            os._exit(0)
    for fd in (end_read, ready_write):
        os.close(fd)
    worker = _Worker(pid, end_write, ready_read)
    worker.wait()
    return worker


def _release(workers: list[_Worker]) -> None:
    for worker in workers:
        os.close(worker.end)
        os.close(worker.ready)
    for worker in workers:
        os.waitpid(worker.pid, 0)


def files_and_bytes(folder: Path) -> tuple[int, int]:
    """Return how many files lie below a folder, and the space that they take; a file of two names counts once."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # live gauges go with their worker
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found[status.st_ino] = status.st_blocks * 512
    return len(found), sum(found.values())


def fill_stock(folder: Path, population: Population) -> None:
    """Write what the same processes would have left behind with prometheus_client's own values."""
    from prometheus_client import values  # noqa: PLC0415 - after our values are published

    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    mine = values.ValueClass
    values.ValueClass = values.MultiProcessValue(lambda: 0)  # type: ignore[no-untyped-call]
    count(population.sets)
    values.ValueClass = mine
    template = folder / "histogram_0.db"
    content = template.read_bytes()
    used = int.from_bytes(content[:4], "little")
    template.unlink()
    for pid in range(population.processes + population.recycled):
        (folder / f"histogram_{pid + 1}.db").write_bytes(content[:used])


def main() -> None:
    """Run the benchmark."""
    from shared import Report, arguments  # noqa: PLC0415 - other benchmarks import this module for its stores
    from weights import first_uses, sizes  # noqa: PLC0415 - it imports this module

    parser = arguments(__doc__)
    parser.add_argument("--starts", type=int, help="new slots with a successor each: 10, and 3 with --quick")
    options = parser.parse_args()
    STORE.app.publish()
    report = Report("stores")
    sizes(report, (5, 100) if options.quick else (1, 5, 100, 1000))
    first_uses(report, options.starts or (3 if options.quick else 10))
    report.save(options.json)


if __name__ == "__main__":
    main()
