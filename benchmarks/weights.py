"""What the store of one worker takes, and what the first request of a label set costs in each process that sees it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared import Report, Value, fast_folder, is_met, pinned, spread, two_cores
from stores import Population, files_and_bytes, serve, workers

from promgun.metrics.counters import Counters
from promgun.metrics.defaults import DURATION_BUCKETS, SIZE_BUCKETS
from promgun.metrics.recorder import Record, Recorder
from promgun.store.board import SIZE as BOARD_SIZE
from promgun.store.board import Role
from promgun.store.new_file import Owner
from promgun.store.process import STORE
from promgun.store.row_scan import scan_rows
from promgun.store.run_directory import RunDirectory
from promgun.store.run_places import take_over
from promgun.store.slot_file import FILE_SIZE

TARGET_ROUTES = 100
TARGET_KIB = 60.0
TARGET_US = 10.0
_SETS = 1000
_KIB = 1024


@contextmanager
def _store() -> Iterator[RunDirectory]:
    with tempfile.TemporaryDirectory(prefix="stores-", dir=fast_folder()) as folder:
        directory = take_over(Path(folder) / "run", Owner())
        try:
            yield directory
        finally:
            directory.close()


# ---- sizes


def sizes(report: Report, routes: tuple[int, ...]) -> None:
    """Show what the store of one worker takes that has served so many routes, each with one status."""
    rows: list[dict[str, Value]] = []
    for number in routes:
        with _store() as directory, workers(directory, Population(1, number, 0), serve):
            files, allocated = files_and_bytes(directory.path)
            row: dict[str, Value] = {"routes": number, "files": files, "store KiB": allocated / _KIB}
            row |= _parts(directory.slots / "1")
            if number == TARGET_ROUTES:
                what = f"{number} routes: at most {TARGET_KIB:g} KiB"
                row |= {"to reach": TARGET_KIB, "reached": report.check(what, fine=allocated <= TARGET_KIB * _KIB)}
            rows.append(row)
    report.table("Store of one worker", rows)


def _parts(path: Path) -> dict[str, Value]:
    """Return what the slot's file consists of; its length is that of the mapping, its blocks are what it takes."""
    data = path.read_bytes()
    found = scan_rows(data, BOARD_SIZE, FILE_SIZE)
    numbers = sum(8 * row.schema.cells for row in found.rows)
    texts = sum(len(value.encode()) for row in found.rows for value in row.values)
    return {
        "slot's file KiB": path.stat().st_blocks * 512 / _KIB,
        "scoreboard": BOARD_SIZE / _KIB,
        "numbers": numbers / _KIB,
        "label values": texts / _KIB,
        "headers, schemas": (found.end - BOARD_SIZE - numbers - texts) / _KIB,
        "unused": (path.stat().st_blocks * 512 - found.end) / _KIB,
        "length MiB": len(data) / _KIB**2,
    }


# ---- first use


@dataclass(frozen=True, slots=True)
class FirstUse:
    """One process: CPU seconds to take the slot with all its rows, and of a first request more than of a later one."""

    taking: float
    each: float


def first_uses(report: Report, starts: int) -> None:
    """Show what first requests cost in a new slot, and in the worker that takes the slot over."""
    found: dict[str, list[FirstUse]] = {"new slot": [], "successor": []}
    measured, _ = two_cores()
    with pinned(measured):
        for _ in range(starts):
            with _store() as directory:
                STORE.open(directory)
                for uses in found.values():
                    uses.append(_in_worker())
    rows: list[dict[str, Value]] = []
    for who, uses in found.items():
        each, taking = spread([use.each * 1e6 for use in uses]), spread([use.taking * 1e3 for use in uses])
        rows.append(
            {
                "worker": who,
                "label sets": _SETS,
                "first request more µs": each.median,
                "IQR": each.iqr,
                "to reach": TARGET_US,
                "reached": report.check(f"first use, {who}: {TARGET_US:g} µs", fine=is_met(each, TARGET_US)),
                "taking the slot ms": taking.median,
                "IQR of it": taking.iqr,
            }
        )
    report.table("First request of a label set (CPU)", rows)


def _in_worker() -> FirstUse:
    """Fork a worker that serves each route once, and again."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            begin = time.process_time()
            STORE.own_slot(Role.WORKER)
            counters = Counters(STORE, 2 * _SETS)
            record = Recorder(STORE, counters, DURATION_BUCKETS, SIZE_BUCKETS, cpu=True).record
            record("GET", "/", 200, 0.01, 0, 14)
            taking = time.process_time() - begin
            first = _served(record)
            os.write(write, f"{taking} {first - _served(record)}".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    if not text:
        raise SystemExit("A worker failed, see above")
    taking, more = map(float, text.split())
    return FirstUse(taking, more / _SETS)


def _served(record: Record) -> float:
    routes = [f"/view_{number}" for number in range(_SETS)]
    begin = time.process_time()
    for route in routes:
        record("GET", route, 200, 0.01, 0, 14)
    return time.process_time() - begin
