"""What a scrape costs: processes x label sets x recycled workers, ours against stock prometheus_client.

Both sides hold the same: in each process a histogram of 12 buckets with that many label sets. *Same* is reading,
merging and writing just that; *stock* does the same with ``MultiProcessCollector`` and the text format. The *page* is
everything that the metrics process serves: boards, figures of every process, queues, our own families too. Stores are
made first and scraped in turns; times are CPU times, which other work on the machine moves least. A *status frame* is
what ``top`` shows and the status page asks for: a snapshot of the store, compared with the one before, as JSON with the
last minute.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from frames import FRAME_WORKERS, FrameCase, frame_rows
from shared import Report, Value, arguments, fast_folder, high_water, mib, pinned, two_cores
from stores import Population, files_and_bytes, fill_stock, serve, workers

from promgun.collect.families import build_family
from promgun.collect.page import Collector
from promgun.exposition.formats import Page
from promgun.store.new_file import Owner
from promgun.store.own_families import Folded
from promgun.store.process import STORE
from promgun.store.reader import StoreReader, families_of
from promgun.store.run_places import take_over

TARGET_CASE = Population(8, 20, 0)
CASES = (
    Population(4, 20, 0),
    TARGET_CASE,
    Population(8, 20, 1000),
    Population(32, 20, 0),
    Population(8, 200, 0),
)
QUICK_CASES = (TARGET_CASE, Population(8, 20, 100))
TARGET_MS = 4.0
TARGET_GROWTH = 1.10
_STOCK_BUDGET = 6.0  # seconds a case: a scrape after 1,000 dead workers takes more than one


class Server:
    """What the metrics process keeps between pages."""

    def __init__(self, store: Path) -> None:
        from promgun.endpoint.negotiation import Form  # noqa: PLC0415 - after our values are published
        from promgun.endpoint.rendering import Renderer  # noqa: PLC0415 - same

        self.collector = Collector(store)
        self._renderer = Renderer()
        self._form = Form()

    def render(self, families: Any) -> bytes:
        """Return the page of these families."""
        return self._renderer.render(families, self._form)


@dataclass(slots=True)
class Case:
    """One pair of stores and what was measured on it, in milliseconds."""

    population: Population
    ours: Path
    stock: Path
    server: Server
    figures: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, seconds: float) -> None:
        """Keep a figure."""
        self.figures.setdefault(what, []).append(seconds * 1e3)

    def median(self, what: str) -> float:
        """Return the median of what was noted."""
        return statistics.median(self.figures[what])


# ---- scrapes


def scrape_ours(server: Server) -> bytes:
    """Return the page of the metrics process."""
    return server.render(server.collector.collect())


def _as_they_are(*_: object) -> dict[tuple[str, ...], Folded]:
    return {}


def scrape_same(reader: StoreReader) -> bytes:
    """Return what stands in the store alone, as prometheus_client would show it."""
    from prometheus_client import generate_latest  # noqa: PLC0415 - same

    families = families_of(reader.read(_as_they_are).series)
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
    if cold:
        case.note("cold", _timed(scrape_same, StoreReader(case.ours))[0])
        case.note("page cold", _timed(scrape_ours, Server(case.ours))[0])
    case.note("warm", _timed(scrape_same, reader)[0])
    case.note("read", _timed(lambda it: it.read(_as_they_are), reader)[0])
    case.note("page", _timed(scrape_ours, case.server)[0])
    seconds, families = _timed(lambda it: it.collect(), case.server.collector)
    case.note("collect", seconds)
    case.note("encode", _timed(case.server.render, families)[0])
    if sum(case.figures.get("stock", [])) < _STOCK_BUDGET * 1e3:
        case.note("stock", _timed(scrape_stock, case.stock)[0])


def measure(cases: list[Case], rounds: int) -> None:
    """Scrape every store in turns."""
    readers = [StoreReader(case.ours) for case in cases]
    for case, reader in zip(cases, readers, strict=True):
        scrape_ours(case.server)
        scrape_same(reader)
    for number in range(rounds):
        for case, reader in zip(cases, readers, strict=True):
            _round(case, reader, cold=number % 4 == 0)


# ---- report


def _check_equal(case: Case) -> None:
    """End the benchmark if the two sides differ: the counts of ended processes must be on both."""
    series = 'app_seconds_count{view="view_0"} '
    pages = scrape_ours(case.server), scrape_same(StoreReader(case.ours)), scrape_stock(case.stock)
    lines = {line for page in pages for line in page.decode().splitlines() if line.startswith(series)}
    if len(lines) != 1:
        raise SystemExit(f"{case.population}: promgun and prometheus_client differ: {lines}")


def show(report: Report, cases: list[Case]) -> None:
    """Print times, then sizes, then whether the targets were reached."""
    times: list[dict[str, Value]] = []
    sizes: list[dict[str, Value]] = []
    for case in cases:
        _check_equal(case)
        times.append(
            {
                "processes x label sets": str(case.population),
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
                "processes x label sets": str(case.population),
                "files": files_and_bytes(case.ours)[0],
                "stock files": files_and_bytes(case.stock)[0],
                "store KiB": files_and_bytes(case.ours)[1] / 1024,
                "stock KiB": files_and_bytes(case.stock)[1] / 1024,
                "page KiB": len(scrape_ours(case.server)) / 1024,
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
    return high_water(lambda: scrape_ours(Server(folder)))


def _peak_stock(folder: Path) -> int:
    return high_water(lambda: scrape_stock(folder))


def _show_targets(report: Report, cases: list[Case]) -> None:
    base = next((case for case in cases if case.population == TARGET_CASE), None)
    if base is None:
        return
    rows: list[dict[str, Value]] = []

    def row(what: str, figure: float, limit: float) -> None:
        reached = report.check(what, fine=figure <= limit)
        rows.append({"target": what, "figure": figure, "to reach": limit, "reached": reached})

    for name, what in (("warm", "same content as stock"), ("page", "whole page")):
        row(f"{base.population}: {what}, warm, ms", base.median(name), TARGET_MS)
        for case in cases:
            if case.population.recycled and case.population[:2] == TARGET_CASE[:2]:
                row(
                    f"{case.population}: {what}, against none recycled",
                    case.median(name) / base.median(name),
                    TARGET_GROWTH,
                )
    report.table("Targets", rows)


def _parse_cases(text: str) -> tuple[Population, ...]:
    try:
        return tuple(Population(*map(int, case.split("x"))) for case in text.split(","))
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError("PROCESSESxSETSxRECYCLED, e.g. 8x20x0,8x20x1000") from error


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--cases", type=_parse_cases, metavar="LIST", help="PROCESSESxSETSxRECYCLED,…")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    if options.quick:
        options.rounds = 15
    STORE.app.publish()
    import prometheus_client  # noqa: F401, PLC0415 - before the forks, so that no worker pays for it

    report = Report("scrape")
    measured, _ = two_cores()
    with ExitStack() as stack:
        cases = []
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scrape-", dir=fast_folder())))
        for number, population in enumerate(options.cases or (QUICK_CASES if options.quick else CASES)):
            folder = root / str(number)
            directory = take_over(folder / "ours", Owner())
            stack.callback(directory.close)
            stock = folder / "stock"
            stock.mkdir()
            case = Case(population, directory.path, stock, Server(directory.path))
            stack.enter_context(workers(directory, population))
            fill_stock(stock, population)
            cases.append(case)
        frames = []
        for number in FRAME_WORKERS:
            directory = take_over(root / f"frame-{number}", Owner())
            stack.callback(directory.close)
            stack.enter_context(workers(directory, Population(number, 20, 0), serve))
            frames.append(FrameCase(number, directory.path))
        with pinned(measured):
            measure(cases, options.rounds)
            for _ in range(options.rounds):
                for frame in frames:
                    frame.measure()
        show(report, cases)
        report.table("Status frame (ms, medians)", frame_rows(frames))
    report.save(options.json)


if __name__ == "__main__":
    main()
