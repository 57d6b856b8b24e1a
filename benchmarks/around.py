"""What promgun costs around the requests: start, stop, a worker's life, idling, short commands; against plain Gunicorn.

Servers are started in turns, and a ratio compares the two of one round; while idle both run side by side. CPU time is
that of master and workers; promgun's metrics process has a row of its own where it matters.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from servers import Command, Server, gunicorn, promgun
from shared import Report, Tree, Value, arguments, cpu_seconds, is_met, spread
from variants import app_of, plain_class

#: The most that promgun may take for each figure, as a ratio to plain Gunicorn.
AIMS = {
    "start to first answer": 1.3,
    "TERM to gone": 1.3,
    "a worker's life": 1.15,
    "idle master": 2.0,
    "idle workers": 2.0,
    "command": 1.0,
}
_SETTLE_SECONDS = 5.0
#: Plain Gunicorn's idle sync workers may use nothing at all in a short round.
_LEAST_MS = 0.1
#: What each short command is compared with: what shows Gunicorn's help.
_REFERENCE = "gunicorn --help"
_TYPED = "promgun run --metrics-b"
_TAB = {
    "_PROMGUN_COMPLETE": "bash_complete",
    "COMP_WORDS": _TYPED,
    "COMP_CWORD": "2",
    "COMP_LINE": _TYPED,
    "COMP_POINT": str(len(_TYPED)),
}
_COMMANDS: Mapping[str, tuple[Sequence[str], Mapping[str, str]]] = {
    _REFERENCE: (("gunicorn", "--help"), {}),
    "promgun --help": (("promgun", "--help"), {}),
    "promgun run --help": (("promgun", "run", "--help"), {}),
    "TAB": (("promgun",), _TAB),
    "promgun ps": (("promgun", "ps"), {}),
}


@dataclass(slots=True)
class Pair:
    """One figure of plain Gunicorn and of promgun, in milliseconds, a value a round; ``aim`` names its limit."""

    name: str
    aim: str = ""
    plain: list[float] = field(default_factory=list)
    promgun: list[float] = field(default_factory=list)

    def add(self, variant: str, seconds: float) -> None:
        """Keep a figure of ``plain`` or ``promgun``."""
        (self.plain if variant == "plain" else self.promgun).append(seconds * 1000)

    def row(self, report: Report) -> dict[str, Value]:
        """Return the row of a table: medians, the ratio of each round's two, and whether the aim is met."""
        ratios = spread([ours / max(theirs, _LEAST_MS) for ours, theirs in zip(self.promgun, self.plain, strict=True)])
        limit = AIMS.get(self.aim)
        row: dict[str, Value] = {
            "figure": self.name,
            "plain, ms": spread(self.plain).median,
            "promgun, ms": spread(self.promgun).median,
            "ratio": ratios.median,
            "IQR": ratios.iqr,
            "aim": limit,
        }
        if limit is not None:
            row["met"] = report.check(f"{self.name}: at most {limit}", fine=is_met(ratios, limit))
        return row


def command(variant: str, worker_type: str, *options: str) -> Command:
    """Return how to start a server of a variant."""
    worker_class = plain_class(worker_type) if variant == "plain" else worker_type
    threads = ["--threads", "4"] if worker_type == "gthread" else []
    words = ["--bind", "127.0.0.1:0", "--worker-class", worker_class, *threads, *options, app_of(worker_type)]
    return gunicorn(sys.executable, words) if variant == "plain" else promgun(words)


def start_and_stop(folder: Path, rounds: int) -> list[Pair]:
    """Start and stop servers with one sync worker in turns."""
    begin, cpu = Pair("start to first answer", "start to first answer"), Pair("CPU until then, without metrics process")
    end = Pair("TERM to gone", "TERM to gone")
    for _ in range(rounds):
        for variant in ("plain", "promgun"):
            server = Server(command(variant, "sync"), folder / f"{variant}.log")
            cpu.add(variant, server.tree().cpu_seconds(with_metrics=False))
            begin.add(variant, server.start_seconds)
            time.sleep(1)
            before = time.perf_counter()
            server.stop()
            end.add(variant, time.perf_counter() - before)
    return [begin, cpu, end]


def life(folder: Path, rounds: int, lives: int) -> Pair:
    """Have each worker serve one request and end; CPU time of a life from fork to reap."""
    figures = Pair("a worker's life, CPU", "a worker's life")
    with ExitStack() as stack:
        servers = {}
        for variant in ("plain", "promgun"):
            server = Server(command(variant, "sync", "--max-requests", "1"), folder / f"life-{variant}.log")
            stack.callback(server.stop)
            servers[variant] = server
        for _ in range(rounds):
            for variant, server in servers.items():
                before = cpu_seconds(server.pid)
                for _ in range(lives):
                    urllib.request.urlopen(server.url, timeout=30).close()
                figures.add(variant, (cpu_seconds(server.pid) - before) / lives)
    return figures


def idle(folder: Path, worker_type: str, rounds: int, seconds: float) -> list[Pair]:
    """Leave two servers of four workers alone, side by side; CPU time a minute."""
    master, workers = Pair(f"{worker_type}: master", "idle master"), Pair(f"{worker_type}: 4 workers", "idle workers")
    with ExitStack() as stack:
        trees = {}
        for variant in ("plain", "promgun"):
            server = Server(command(variant, worker_type, "--workers", "4"), folder / f"idle-{variant}.log")
            stack.callback(server.stop)
            trees[variant] = server
        time.sleep(_SETTLE_SECONDS)
        found = {variant: server.tree() for variant, server in trees.items()}
        for _ in range(rounds):
            before = {variant: _cpu(tree) for variant, tree in found.items()}
            time.sleep(seconds)
            for variant, tree in found.items():
                used = [now - then for now, then in zip(_cpu(tree), before[variant], strict=True)]
                master.add(variant, used[0] * 60 / seconds)
                workers.add(variant, used[1] * 60 / seconds)
    return [master, workers]


def _cpu(tree: Tree) -> tuple[float, float]:
    return cpu_seconds(tree.master), sum(map(cpu_seconds, tree.workers))


def commands(rounds: int) -> list[Pair]:
    """Run short commands in turns; CPU time of each, compared with Gunicorn's help."""
    pairs = {name: Pair(name, "command") for name in _COMMANDS if name != _REFERENCE}
    folder = Path(sys.executable).parent
    for _ in range(rounds):
        used = {}
        for name, (words, variables) in _COMMANDS.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            argv = [str(folder / words[0]), *words[1:]]
            subprocess.run(
                argv, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used[name] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        for name, pair in pairs.items():
            pair.add("plain", used[_REFERENCE])
            pair.add("promgun", used[name])
    return list(pairs.values())


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__)
    parser.add_argument("--only", default="start,life,idle,commands", help="which parts")
    parser.add_argument("--worker-types", default="sync,gthread,gevent,eventlet,asgi,uvicorn", help="to leave idle")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60, help="an idle round lasts")
    return parser


def main() -> None:
    """Run the benchmark."""
    options = _parser().parse_args()
    idle_rounds, lives = 2, 20
    if options.quick:
        options.rounds, options.seconds, options.worker_types, idle_rounds, lives = 2, 10, "gthread", 1, 5
    report, parts = Report("around"), options.only.split(",")
    with tempfile.TemporaryDirectory(prefix="around-") as name:
        folder = Path(name)
        if "start" in parts:
            report.table("Start and stop", [pair.row(report) for pair in start_and_stop(folder, options.rounds)])
        if "life" in parts:
            report.table("A worker's life", [life(folder, options.rounds, lives).row(report)])
        if "idle" in parts:
            pairs = [
                pair
                for worker_type in options.worker_types.split(",")
                for pair in idle(folder, worker_type, idle_rounds, options.seconds)
            ]
            report.table("Idle, CPU a minute", [pair.row(report) for pair in pairs])
        if "commands" in parts:
            report.table("CPU of a command, against gunicorn --help", [p.row(report) for p in commands(options.rounds)])
    report.save(options.json)


if __name__ == "__main__":
    main()
