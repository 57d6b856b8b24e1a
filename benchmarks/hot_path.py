"""Nanoseconds an operation, ours against stock prometheus_client, and microseconds a request that measuring adds.

Operations are timed in this process, in turns, over many batches; the cost of the timing loop is taken off. Requests
are served by real worker objects over loopback connections (see twins.py), each case in fresh interpreters: the
figure to trust for small differences.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import timeit
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import twins
from gunicorn.config import Config
from shared import Report, Spread, Value, arguments, fast_folder, percentile, pinned, spread, two_cores

import promgun.config.gunicorn_settings  # noqa: F401 - makes our settings known to Gunicorn
from promgun.metrics.instruments import Instruments
from promgun.store.board import Role
from promgun.store.new_file import Owner
from promgun.store.process import STORE
from promgun.store.request_table import BUSY
from promgun.store.run_places import create_private

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)  # and +Inf: 15
_BATCH_SECONDS = 0.001
ADDED_TARGET = 5.0


@dataclass(frozen=True, slots=True)
class Operation:
    """The same thing done by both sides, as statements; ``target`` is nanoseconds (issue 3)."""

    name: str
    ours: str
    stock: str
    target: float | None = None


_STOCK_REQUEST = (
    's["running"].inc(); s["requests"].labels("GET", "200").inc(); '
    's["seconds"].labels("GET").observe(0.0004); s["running"].dec()'
)
_BEGIN = "region = take(); requests.cells[region + BUSY] -= now"
_END = "requests.cells[region + BUSY] += now; leave(region)"
_RECORD = 'record("GET", "", 200, 0.0004, 0, 14)'
OPERATIONS = (
    Operation("nothing", "pass", "pass"),
    Operation("accounting of one request", f"{_BEGIN}; {_RECORD}; {_END}", _STOCK_REQUEST, 1500),
    Operation(
        "… Recorder.record",
        _RECORD,
        's["requests"].labels("GET", "200").inc(); s["seconds"].labels("GET").observe(0.0004)',
    ),
    Operation("… board: begins, ends", f"{_BEGIN}; {_END}", 's["running"].inc(); s["running"].dec()'),
    Operation("Counter.inc, bound", 'p["counter"].inc()', 's["counter"].inc()', 500),
    Operation("Counter.labels().inc", 'p["requests"].labels("GET", "200").inc()', _STOCK_REQUEST.split("; ")[1]),
    Operation("Gauge.inc, bound", 'p["running"].inc()', 's["running"].inc()'),
    Operation("Gauge.set, bound", 'p["running"].set(1.0)', 's["running"].set(1.0)'),
    Operation("Histogram.observe, 1st of 15", 'p["histogram"].observe(0.001)', 's["histogram"].observe(0.001)', 1000),
    Operation("Histogram.observe, 8th of 15", 'p["histogram"].observe(0.3)', 's["histogram"].observe(0.3)', 1000),
    Operation("Histogram.observe, 15th of 15", 'p["histogram"].observe(20.0)', 's["histogram"].observe(20.0)', 1000),
    Operation("Summary.observe, bound", 'p["summary"].observe(0.1)', 's["summary"].observe(0.1)'),
    Operation("one value: inc", 'p["value"].inc(1.0)', 's["value"].inc(1.0)'),
)


# ---- operations


@contextmanager
def _names() -> Iterator[dict[str, Any]]:
    """Give what the statements name: ours on promgun's store, ``p`` and ``s`` the metrics of an application."""
    with tempfile.TemporaryDirectory(dir=fast_folder()) as stock_folder:
        directory = create_private(Owner())
        try:
            STORE.app.publish()
            STORE.open(directory)
            STORE.own_slot(Role.WORKER)
            names: dict[str, Any] = {"p": _metrics()}
            from prometheus_client import values  # noqa: PLC0415 - after its value class is published

            os.environ["PROMETHEUS_MULTIPROC_DIR"] = stock_folder
            values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
            names["s"] = _metrics()
            names["record"] = Instruments(STORE, Config()).recorder.record
            requests = names["requests"] = STORE.board.requests
            names["take"], names["leave"] = requests.free.pop, requests.free.append
            names["BUSY"], names["now"] = BUSY, time.monotonic_ns()
            yield names
        finally:
            directory.close()


def _metrics() -> dict[str, Any]:
    """Make an application's metrics with whatever value class prometheus_client has now."""
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary  # noqa: PLC0415 - see _names

    registry = CollectorRegistry()
    metrics: dict[str, Any] = {
        "requests": Counter("requests", "Requests.", ["method", "status"], registry=registry),
        "seconds": Histogram("seconds", "Time.", ["method"], buckets=BUCKETS, registry=registry),
        "running": Gauge("running", "Running.", multiprocess_mode="livesum", registry=registry),
        "counter": Counter("bound", "Bound.", ["kind"], registry=registry).labels("one"),
        "histogram": Histogram("bound_seconds", "Bound.", ["kind"], buckets=BUCKETS, registry=registry).labels("one"),
        "summary": Summary("bound_summary", "Bound.", registry=registry),
    }
    # Children take the value class of the moment when they are made: now.
    metrics["requests"].labels("GET", "200")
    metrics["seconds"].labels("GET")
    metrics["value"] = metrics["counter"]._value  # noqa: SLF001 - the seam itself is timed
    return metrics


def _time(statements: list[str], names: dict[str, Any], batches: int) -> list[list[float]]:
    """Return, for each statement, nanoseconds a run in each batch; the batches take turns."""
    timers = [timeit.Timer(statement, globals=names) for statement in statements]
    sizes = [max(1, int(1000 * _BATCH_SECONDS / max(timer.timeit(1000), 1e-6))) for timer in timers]
    results: list[list[float]] = [[] for _ in timers]
    for _ in range(batches):
        for timer, size, figures in zip(timers, sizes, results, strict=True):
            figures.append(timer.timeit(size) / size * 1e9)
    return results


def operations(report: Report, batches: int) -> None:
    """Time every operation on both sides."""
    with _names() as names:
        figures = _time([text for each in OPERATIONS for text in (each.ours, each.stock)], names, batches)
    loop = min(figures[0])
    rows: list[dict[str, Value]] = []
    for number, each in enumerate(OPERATIONS[1:], 1):
        ours, stock = figures[2 * number], figures[2 * number + 1]
        median = statistics.median(ours) - loop
        row: dict[str, Value] = {
            "operation": each.name,
            "promgun min": min(ours) - loop,
            "promgun median": median,
            "stock min": min(stock) - loop,
            "stock median": statistics.median(stock) - loop,
            "stock / promgun": (min(stock) - loop) / (min(ours) - loop),
            "target": each.target,
            "reached": None if each.target is None else report.check(each.name, fine=median <= each.target),
        }
        rows.append(row)
    report.table("Operations (ns)", rows)


# ---- requests


def _one_run(task: tuple[twins.Case, tuple[str, ...], int, int]) -> dict[str, list[float]]:
    measured, _ = two_cores()
    with pinned(measured):
        return twins.drive(*task)


def requests(report: Report, cases: list[twins.Case], options: argparse.Namespace) -> None:
    """Time whole requests; each repetition of a case has interpreters of its own."""
    variants = tuple(options.variants.split(","))
    rows: list[dict[str, Value]] = []
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for case in cases:
            task = (case, variants, options.batches, options.size)
            runs = pool.map(_one_run, [task] * options.repeat, chunksize=1)
            floors = {variant: [percentile(run[variant], 0.05) for run in runs] for variant in variants}
            for variant in variants:
                row: dict[str, Value] = {
                    "worker type": case.worker_type,
                    "keep-alive": case.keep_alive,
                    "variant": variant,
                    "µs (5th percentile)": statistics.median(floors[variant]),
                }
                if variant != "plain":
                    row |= _added(runs, variant, floors)
                if variant in twins.OURS:
                    what = f"{case.worker_type}, {variant}: at most {ADDED_TARGET:g} µs a request"
                    row |= {"target": ADDED_TARGET}
                    row |= {"reached": report.check(what, fine=float(str(row["added"])) <= ADDED_TARGET)}
                rows.append(row)
    report.table("Requests (µs of CPU, in process)", rows)


def _added(runs: list[dict[str, list[float]]], variant: str, floors: dict[str, list[float]]) -> dict[str, Value]:
    differences = [measured - plain for run in runs for measured, plain in zip(run[variant], run["plain"], strict=True)]
    around: Spread = spread(differences)
    return {
        "added": statistics.median(a - b for a, b in zip(floors[variant], floors["plain"], strict=True)),
        "added, median of batches": around.median,
        "IQR": around.iqr,
    }


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--worker-types", default=",".join(twins.CLASSES))
    parser.add_argument("--variants", default=",".join(twins.VARIANTS), help="plain has to be one of them")
    parser.add_argument("--batches", type=int, default=120, help="of requests, a repetition")
    parser.add_argument("--size", type=int, default=40, help="requests in a batch")
    parser.add_argument("--repeat", type=int, default=3, help="fresh interpreters a case")
    parser.add_argument("--only", choices=("operations", "requests"))
    options = parser.parse_args()
    both: tuple[bool, ...] = (True, False)
    if options.quick:
        options.batches, options.repeat, both = 100, 1, (True,)
    types = options.worker_types.split(",")
    cases = [twins.Case("sync", keep_alive=False)] if "sync" in types else []
    cases += [twins.Case(name, keep) for keep in both for name in types if name != "sync"]
    report = Report("hot_path")
    measured, _ = two_cores()
    if options.only != "requests":
        with pinned(measured):
            operations(report, 60 if options.quick else 400)
    if options.only != "operations":
        requests(report, cases, options)
    report.save(options.json)


if __name__ == "__main__":
    main()
