"""What a scrape costs: processes x label sets x recycled workers, ours against stock prometheus_client.

Both sides hold the same: in each process a histogram of 12 buckets with that many label sets. *Same* is reading,
merging and writing just that; stock is ``MultiProcessCollector`` and text. The *page* is everything that the metrics
process serves: boards, figures of every process, queues, our own families too. Stores are made first and scraped in
turns; times are CPU times, which other work on the machine moves least.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from shared import Report, Value, arguments, fast_folder, high_water, mib, pinned, two_cores

from promgun.collect import Collector
from promgun.exposition.formats import Page
from promgun.store.board import Cell, Role
from promgun.store.directory import StoreDirectory, take_over
from promgun.store.families import build_family
from promgun.store.files import Owner
from promgun.store.process import STORE
from promgun.store.reader import StoreReader, families_of

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # and +Inf: 12 buckets
CASES = ((4, 20, 0), (8, 20, 0), (8, 20, 1000), (32, 20, 0), (8, 200, 0))
QUICK_CASES = ((8, 20, 0), (8, 20, 100))
TARGET_CASE = (8, 20, 0)
TARGET_MS = 4.0
TARGET_GROWTH = 1.10
_STOCK_BUDGET = 6.0  # seconds a case: a scrape after 1,000 dead workers takes more than one


@dataclass(slots=True)
class Case:
    """One pair of stores and what was measured on it, in milliseconds."""

    processes: int
    sets: int
    recycled: int
    ours: Path
    stock: Path
    collector: Collector
    figures: dict[str, list[float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Spell the case."""
        return f"{self.processes} x {self.sets}, {self.recycled} recycled"

    def note(self, what: str, seconds: float) -> None:
        """Keep a figure."""
        self.figures.setdefault(what, []).append(seconds * 1e3)

    def median(self, what: str) -> float:
        """Return the median of what was noted."""
        return statistics.median(self.figures[what])


# ---- content


def count(sets: int) -> None:
    """Make the metrics of an application and use each label set, with whatever values prometheus_client has."""
    from prometheus_client import CollectorRegistry, Histogram  # noqa: PLC0415 - after our values are published

    histogram = Histogram("app_seconds", "Time.", ["view"], buckets=BOUNDS, registry=CollectorRegistry())
    for number in range(sets):
        histogram.labels(f"view_{number}").observe(number % 12)


@contextmanager
def _workers(directory: StoreDirectory, case: Case) -> Iterator[None]:
    """Recycle workers on a store, then keep as many alive as the case says."""
    STORE.open(directory)
    for first in range(0, case.recycled, case.processes):
        number = min(case.processes, case.recycled - first)
        _release([_worker(case.sets) for _ in range(number)])
    alive = [_worker(case.sets) for _ in range(case.processes)]
    try:
        yield
    finally:
        _release(alive)


def _worker(sets: int) -> tuple[int, int]:
    """Fork a worker that has counted and now waits; return its pid and the descriptor that ends it when closed."""
    end_read, end_write = os.pipe()
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(end_write)
            STORE.own_slot(Role.WORKER)
            STORE.board.cells[Cell.BOOTED] = time.monotonic_ns()
            count(sets)
            os.write(ready_write, b"!")
            os.read(end_read, 1)
        finally:
            os._exit(0)
    for fd in (end_read, ready_write):
        os.close(fd)
    if os.read(ready_read, 1) != b"!":
        raise SystemExit("A worker failed")
    os.close(ready_read)
    return pid, end_write


def _release(workers: list[tuple[int, int]]) -> None:
    for _, end in workers:
        os.close(end)
    for pid, _ in workers:
        os.waitpid(pid, 0)


def _fill_stock(folder: Path, case: Case) -> None:
    """Write what the same processes would have left behind with prometheus_client's own values."""
    from prometheus_client import values  # noqa: PLC0415 - after our values are published

    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    mine = values.ValueClass
    values.ValueClass = values.MultiProcessValue(lambda: 0)  # type: ignore[no-untyped-call]
    count(case.sets)
    values.ValueClass = mine
    template = folder / "histogram_0.db"
    content = template.read_bytes()
    used = int.from_bytes(content[:4], "little")
    template.unlink()
    for pid in range(case.processes + case.recycled):
        (folder / f"histogram_{pid + 1}.db").write_bytes(content[:used])


# ---- scrapes


def scrape_ours(collector: Collector) -> bytes:
    """Return the page of the metrics process."""
    from prometheus_client import generate_latest  # noqa: PLC0415 - after our values are published

    return generate_latest(Page(collector.collect()))


def scrape_same(reader: StoreReader) -> bytes:
    """Return what stands in the store alone, as prometheus_client would show it."""
    from prometheus_client import generate_latest  # noqa: PLC0415 - same

    families = families_of(reader.read().series)
    return generate_latest(Page(build_family(name, series) for name, series in families.items()))


def scrape_stock(folder: Path) -> bytes:
    """Return the page as prometheus_client's documentation has it made."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - same
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - same

    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _timed(function: Callable[[Any], Any], argument: Any) -> tuple[float, Any]:
    gc.collect()
    begin = time.process_time()
    result = function(argument)
    return time.process_time() - begin, result


def _round(case: Case, reader: StoreReader, *, cold: bool) -> None:
    from prometheus_client import generate_latest  # noqa: PLC0415 - after our values are published

    if cold:
        case.note("cold", _timed(scrape_same, StoreReader(case.ours))[0])
        case.note("page cold", _timed(scrape_ours, Collector(case.ours))[0])
    case.note("warm", _timed(scrape_same, reader)[0])
    case.note("read", _timed(lambda it: it.read(), reader)[0])
    case.note("page", _timed(scrape_ours, case.collector)[0])
    seconds, families = _timed(lambda it: it.collect(), case.collector)
    case.note("collect", seconds)
    case.note("encode", _timed(generate_latest, Page(families))[0])
    if sum(case.figures.get("stock", [])) < _STOCK_BUDGET * 1e3:
        case.note("stock", _timed(scrape_stock, case.stock)[0])


def measure(cases: list[Case], rounds: int) -> None:
    """Scrape every store in turns."""
    readers = [StoreReader(case.ours) for case in cases]
    for case, reader in zip(cases, readers, strict=True):
        scrape_ours(case.collector)
        scrape_same(reader)
    for number in range(rounds):
        for case, reader in zip(cases, readers, strict=True):
            _round(case, reader, cold=number % 4 == 0)


# ---- report


def _check_equal(case: Case) -> None:
    """End the benchmark if the sides do not show the same: what was recycled counts on all."""
    series = 'app_seconds_count{view="view_0"} '
    pages = scrape_ours(case.collector), scrape_same(StoreReader(case.ours)), scrape_stock(case.stock)
    lines = {line for page in pages for line in page.decode().splitlines() if line.startswith(series)}
    if len(lines) != 1:
        raise SystemExit(f"{case.name}: promgun and prometheus_client differ: {lines}")


def show(report: Report, cases: list[Case]) -> None:
    """Print times, then sizes, then what was to be reached."""
    times: list[dict[str, Value]] = []
    sizes: list[dict[str, Value]] = []
    for case in cases:
        _check_equal(case)
        times.append(
            {
                "processes x label sets": case.name,
                "stock": case.median("stock"),
                "same, cold": case.median("cold"),
                "same, warm": case.median("warm"),
                "… read": case.median("read"),
                "stock / same": case.median("stock") / case.median("warm"),
                "page, cold": case.median("page cold"),
                "page, warm": case.median("page"),
                "… collect": case.median("collect"),
                "… encode": case.median("encode"),
            }
        )
        sizes.append(
            {
                "processes x label sets": case.name,
                "files": _files(case.ours)[0],
                "stock files": _files(case.stock)[0],
                "store KiB": _files(case.ours)[1] / 1024,
                "stock KiB": _files(case.stock)[1] / 1024,
                "page KiB": len(scrape_ours(case.collector)) / 1024,
                "peak MiB": mib(_peak(_peak_ours, case.ours)),
                "stock peak MiB": mib(_peak(_peak_stock, case.stock)),
            }
        )
    report.table("Scrape (ms, medians)", times)
    report.table("Sizes", sizes)
    _show_targets(report, cases)


def _peak(measure: Callable[[Path], int], folder: Path) -> int:
    """Return the bytes that a scrape takes in a process that has done nothing else."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (folder,))


def _peak_ours(folder: Path) -> int:
    return high_water(lambda: scrape_ours(Collector(folder)))


def _peak_stock(folder: Path) -> int:
    return high_water(lambda: scrape_stock(folder))


def _files(folder: Path) -> tuple[int, int]:
    files = list(folder.glob("*.db"))
    return len(files), sum(file.stat().st_size for file in files)


def _show_targets(report: Report, cases: list[Case]) -> None:
    base = next((case for case in cases if (case.processes, case.sets, case.recycled) == TARGET_CASE), None)
    if base is None:
        return
    rows: list[dict[str, Value]] = []

    def row(what: str, figure: float, limit: float) -> None:
        reached = report.check(what, fine=figure <= limit)
        rows.append({"target": what, "figure": figure, "to reach": limit, "reached": reached})

    for name, what in (("warm", "same content as stock"), ("page", "whole page")):
        row(f"{base.name}: {what}, warm, ms", base.median(name), TARGET_MS)
        for case in cases:
            if case.recycled and (case.processes, case.sets) == TARGET_CASE[:2]:
                row(f"{case.name}: {what}, against none recycled", case.median(name) / base.median(name), TARGET_GROWTH)
    report.table("Targets", rows)


def _parse_cases(text: str) -> tuple[tuple[int, ...], ...]:
    cases = tuple(tuple(map(int, case.split("x"))) for case in text.split(","))
    if any(len(case) != 3 or case[0] < 1 for case in cases):
        raise argparse.ArgumentTypeError("PROCESSESxSETSxRECYCLED, e.g. 8x20x0,8x20x1000")
    return cases


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--cases", type=_parse_cases, metavar="LIST", help="PROCESSESxSETSxRECYCLED,…")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    if options.quick:
        options.rounds = 15
    STORE.publish()
    import prometheus_client  # noqa: F401, PLC0415 - before the forks, so that no worker pays for it

    report = Report("scrape")
    measured, _ = two_cores()
    with ExitStack() as stack:
        cases = []
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scrape-", dir=fast_folder())))
        for processes, sets, recycled in options.cases or (QUICK_CASES if options.quick else CASES):
            folder = root / f"{processes}x{sets}x{recycled}"
            directory = take_over(folder / "ours", Owner())
            stack.callback(directory.close)
            stock = folder / "stock"
            stock.mkdir()
            case = Case(processes, sets, recycled, directory.path, stock, Collector(directory.path))
            stack.enter_context(_workers(directory, case))
            _fill_stock(stock, case)
            cases.append(case)
        with pinned(measured):
            measure(cases, options.rounds)
        show(report, cases)
    report.save(options.json)


if __name__ == "__main__":
    main()
