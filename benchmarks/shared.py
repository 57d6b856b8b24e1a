"""What the benchmarks share: process trees, spreads, a table on the terminal and the same as JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

#: CPUCLOCK_SCHED of a whole process (linux/posix-timers_types.h): nanoseconds, where /proc/PID/stat counts 10 ms ticks.
_CLOCK_OF_PROCESS = 2
_REPORTED = ("gunicorn", "prometheus_client", "gevent", "eventlet")
_MIB = 1 << 20

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the quartiles around it."""

    median: float
    low: float
    high: float

    @property
    def iqr(self) -> float:
        """Distance of the quartiles."""
        return self.high - self.low


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` (0 to 1) of the values lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


# ---- processes


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads, and of the children that it has reaped; 0 when it is gone."""
    if not pid:
        return 0.0
    try:
        own = time.clock_gettime((~pid << 3) | _CLOCK_OF_PROCESS)
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    # proc(5): fields 16 and 17, cutime and cstime
    return own + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Tree:
    """The processes of one server: its master, its workers, and promgun's metrics process (0 when there is none)."""

    master: int
    workers: tuple[int, ...]
    metrics: int

    def cpu_seconds(self, *, with_metrics: bool) -> float:
        """CPU time of the whole tree."""
        pids = [self.master, *self.workers, *([self.metrics] if with_metrics and self.metrics else [])]
        return sum(map(cpu_seconds, pids))


def tree_of(master: int) -> Tree:
    """Return the tree below a master as it is now."""
    workers, metrics = [], 0
    for child in psutil.Process(master).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("promgun.endpoint" in word for word in child.cmdline()):
                metrics = child.pid
            else:
                workers.append(child.pid)
    return Tree(master, tuple(workers), metrics)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(psutil.Process(pid).memory_info().rss)


def unique_bytes(pid: int) -> int:
    """Memory of a process that no other process shares."""
    return int(psutil.Process(pid).memory_full_info().uss)


def fast_folder() -> str | None:
    """Return shared memory, where promgun keeps its store, as a place for temporary folders; ``None`` without any."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - what is made in it is private


def high_water(function: Callable[[], object]) -> int:
    """Return by how many bytes the resident memory of this process rises at most while a function runs."""
    # proc(5): 5 resets the peak that VmHWM shows
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    function()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    line = next(line for line in _lines("/proc/self/status") if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


@contextlib.contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Run a block, and every process started in it, on some cores only; without effect where there are fewer."""
    before = os.sched_getaffinity(0)
    if cores <= before:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def two_cores() -> tuple[set[int], set[int]]:
    """Return one core to measure on and one for everything else; the same one where there is no other."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[0]}, {cores[-1]}


# ---- reports


def machine() -> dict[str, Value]:
    """Return the facts about the machine without which a figure means nothing."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    facts: dict[str, Value] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }
    for name in _REPORTED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            facts[name] = metadata.version(name)
    return facts


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


class Report:
    """Collects tables of rows, prints each as it comes, and writes all of them with :meth:`save`."""

    def __init__(self, name: str) -> None:
        self._content: dict[str, object] = {"benchmark": name, "machine": machine()}
        self._console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
        self.failed = False

    def table(self, title: str, rows: Sequence[dict[str, Value]]) -> None:
        """Print and keep a table; the columns are the keys of its rows, in the order in which they appear."""
        self.keep(title, rows)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in columns:
            text = all(isinstance(row.get(column), str | None) for row in rows)
            table.add_column(column, justify="left" if text else "right")
        for row in rows:
            table.add_row(*(_spell(row.get(column)) for column in columns))
        self._console.print(table)

    def keep(self, title: str, rows: Sequence[dict[str, Value]]) -> None:
        """Keep a table for the JSON without printing it."""
        self._content[title] = list(rows)

    def say(self, line: str) -> None:
        """Print a line that stands between the tables."""
        self._console.print(line)

    def check(self, what: str, *, fine: bool) -> str:
        """Return ``yes`` or ``NO``; a NO makes :attr:`failed` true."""
        if not fine:
            self.failed = True
            self._console.print(f"not reached: {what}", style="red")
        return "yes" if fine else "NO"

    def save(self, path: Path | None) -> None:
        """Write everything that was shown as JSON, if a path is given."""
        if path is not None:
            path.write_text(json.dumps(self._content, indent=2) + "\n")


def _spell(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else value
    digits = next((digits for digits, limit in ((0, 1000), (1, 100), (2, 10)) if abs(value) >= limit), 3)
    return f"{value:,.{digits}f}"


def mib(size: float) -> float:
    """Bytes as MiB."""
    return size / _MIB


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="less of everything: under 30 s")
    return parser


def is_met(around: Spread, limit: float) -> bool:
    """Whether a figure keeps to its limit: its median less half the distance of the quartiles does."""
    return around.median - around.iqr / 2 <= limit
