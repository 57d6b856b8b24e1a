"""How a scrape grows: CPU time, memory and store by number of slots x label sets, up to and beyond the cap on sets.

Each slot has a living worker that has served so many routes; it serves all of them again between two pages, so that a
warm page is one on which every number has changed. Beyond the cap the other routes are folded into one set. Lines are
fitted along both axes, with the least relative error: the deviation says how far the farthest point is from its line.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from scrape import Server, scrape_ours
from shared import Report, Value, arguments, fast_folder, high_water, mib, pinned, resident_bytes, spread, two_cores
from stores import Population, files_and_bytes, workers

from promgun.metrics.counters import Counters
from promgun.metrics.defaults import DURATION_BUCKETS, MAX_LABEL_SETS, SIZE_BUCKETS
from promgun.metrics.recorder import Record, Recorder
from promgun.store.new_file import Owner
from promgun.store.process import STORE
from promgun.store.run_places import take_over

SLOTS = (1, 4, 16, 64, 256)
SETS = (5, 50, 500, 1000, 5000)
#: The farthest that a point may be from its line, and the most that a page may cost beyond the cap.
TARGET_DEVIATION = 0.25
TARGET_CLIFF = 1.25
_POINTS_OF_A_LINE = 3
_FIGURES = ("page ms", "cold ms", "peak MiB", "store KiB")


class Serving:
    """What a worker does: it serves every route once when it is called first, then those that have sets of their own.

    It is called in forked workers only: each has a recorder of its own.
    """

    def __init__(self) -> None:
        self._record: Record | None = None

    def __call__(self, sets: int) -> None:
        """Serve."""
        record = self._record
        if record is None:
            counters = Counters(STORE, MAX_LABEL_SETS)
            record = self._record = Recorder(STORE, counters, DURATION_BUCKETS, SIZE_BUCKETS, cpu=True).record
        else:
            sets = min(sets, MAX_LABEL_SETS)
        for number in range(sets):
            record("GET", f"/view_{number}", 200, number % 12, 0, number)


@dataclass(frozen=True, slots=True)
class Point:
    """One store: so many slots, so many label sets asked for in each, and what was measured."""

    slots: int
    sets: int
    figures: dict[str, float]


def measure(slots: int, sets: int, rounds: int) -> Point:
    """Make a store and scrape it."""
    with tempfile.TemporaryDirectory(prefix="growth-", dir=fast_folder()) as folder:
        directory = take_over(Path(folder) / "run", Owner())
        try:
            with workers(directory, Population(slots, sets, 0), Serving()) as serve_again:
                return Point(slots, sets, _figures(directory.path, serve_again, rounds))
        finally:
            directory.close()


def _figures(store: Path, serve_again: Callable[[], None], rounds: int) -> dict[str, float]:
    measured, _ = two_cores()
    with pinned(measured):
        with get_context("spawn").Pool(1) as pool:
            cold, peak = pool.apply(_cold, (store,))
        server = Server(store)
        scrape_ours(server)
        pages = []
        for _ in range(rounds):
            serve_again()
            gc.collect()
            begin = time.process_time()
            page = scrape_ours(server)
            pages.append(time.process_time() - begin)
    around = spread(pages)
    return {
        "page ms": around.median * 1e3,
        "IQR": around.iqr * 1e3,
        "cold ms": cold * 1e3,
        "peak MiB": mib(peak),
        "store KiB": files_and_bytes(store)[1] / 1024,
        "page KiB": len(page) / 1024,
    }


def _cold(store: Path) -> tuple[float, int]:
    """Return CPU seconds of the first page in a process that has imported everything, and the peak of its memory."""
    server = Server(store)
    before = resident_bytes(os.getpid())
    took = []

    def scrape() -> None:
        begin = time.process_time()
        scrape_ours(server)
        took.append(time.process_time() - begin)

    rise = high_water(scrape)
    return took[0], before + rise


# ---- lines


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line through points, and how far the farthest of them is from it, as a share of its value."""

    base: float
    slope: float
    deviation: float


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """Return the line with the least sum of squared relative errors; all ``y`` must be above 0."""
    weights = [1 / y**2 for _, y in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    across = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True))
    along = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = across / along
    base = mean_y - slope * mean_x
    return Line(base, slope, max(abs(base + slope * x - y) / y for x, y in points))


def _lines(points: Sequence[Point]) -> list[tuple[str, str, list[tuple[float, Point]]]]:
    """Return what is fixed, what grows, and the points of each line; sets beyond the cap are no longer on it."""
    lines = [
        (f"{sets} sets", "slots", [(float(p.slots), p) for p in points if p.sets == sets])
        for sets in sorted({point.sets for point in points})
    ]
    for slots in sorted({point.slots for point in points}):
        on_line = [(float(p.sets), p) for p in points if p.slots == slots and p.sets <= MAX_LABEL_SETS]
        lines.append((f"{slots} slots", "sets", on_line))
    return [line for line in lines if len(line[2]) >= _POINTS_OF_A_LINE]


def show(report: Report, points: Sequence[Point]) -> None:
    """Print the points, the lines through them, and what the cap costs."""
    report.table("Growth", [{"slots": p.slots, "label sets": p.sets, **p.figures} for p in points])
    rows: list[dict[str, Value]] = []
    for fixed, grows, on_line in _lines(points):
        for figure in _FIGURES:
            line = fit([(x, point.figures[figure]) for x, point in on_line])
            what = f"{figure} by {grows} at {fixed}: a line within {TARGET_DEVIATION:.0%}"
            judged = report.check(what, fine=line.deviation <= TARGET_DEVIATION)
            row: dict[str, Value] = {"figure": figure, "at": fixed, "by": grows, "points": len(on_line)}
            row |= {"base": line.base, "each": f"{line.slope:.4g}", "deviation %": line.deviation * 100}
            rows.append(row | {"to reach": TARGET_DEVIATION * 100, "reached": judged})
    report.table("Lines", rows)
    report.table("At the cap", _cap_rows(report, points))


def _cap_rows(report: Report, points: Sequence[Point]) -> list[dict[str, Value]]:
    rows: list[dict[str, Value]] = []
    by_place = {(point.slots, point.sets): point for point in points}
    for point in points:
        at_cap = by_place.get((point.slots, MAX_LABEL_SETS))
        if point.sets <= MAX_LABEL_SETS or at_cap is None:
            continue
        row: dict[str, Value] = {"slots": point.slots, "label sets": f"{point.sets} to {MAX_LABEL_SETS}"}
        row |= {figure: point.figures[figure] / at_cap.figures[figure] for figure in _FIGURES}
        what = f"{point.slots} slots x {point.sets} sets: at most {TARGET_CLIFF} of {MAX_LABEL_SETS}"
        worst = max(point.figures[figure] / at_cap.figures[figure] for figure in _FIGURES)
        rows.append(row | {"to reach": TARGET_CLIFF, "reached": report.check(what, fine=worst <= TARGET_CLIFF)})
    return rows


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__)
    parser.add_argument("--slots", type=_numbers, metavar="LIST", default=SLOTS)
    parser.add_argument("--sets", type=_numbers, metavar="LIST", default=SETS)
    parser.add_argument("--most-rows", type=int, default=20_000, help="leave out stores with more rows than that")
    parser.add_argument("--rounds", type=int, default=10, help="warm pages of each store")
    return parser


def main() -> None:
    """Run the benchmark."""
    options = _parser().parse_args()
    if options.quick:
        options.slots, options.sets, options.rounds = (1, 4, 16), (5, 50, 500), 5
    STORE.app.publish()
    import prometheus_client  # noqa: F401, PLC0415 - before the forks, so that no worker pays for it

    report = Report("growth")
    points = [
        measure(slots, sets, options.rounds)
        for slots in options.slots
        for sets in options.sets
        if slots * min(sets, MAX_LABEL_SETS) <= options.most_rows
    ]
    show(report, points)
    report.save(options.json)


if __name__ == "__main__":
    main()
