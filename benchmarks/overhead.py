"""Server CPU time a request, over the whole process tree: plain Gunicorn against everything that measures it.

Same application, worker type and options, one worker. All servers of a comparison run at once on one core, the load
comes from the other, and they take turns at it: A B C D, A B C D … A round's ratio compares neighbours in time; that of
a start is the median of its rounds. With ``--python`` the same is done on each Python, in process as well.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import twins
from by_python import compare_pythons
from interpreters import default_cache
from load import Load
from servers import Server
from shared import Report, Value, arguments, is_met, mib, pinned, spread, two_cores, unique_bytes
from variants import PEERS, VARIANTS, Ground, Variant, peers_python

_TYPES = ("sync", "gthread", "gevent", "eventlet")
TARGET_RATIO = 1.02


# ---- measuring


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison."""

    worker_type: str
    keep_alive: bool
    mix: bool


@dataclass(slots=True)
class Figures:
    """What one variant's servers did, a value a round; microseconds of CPU a request."""

    #: the rounds of each start, and all rounds
    starts: list[list[float]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    cpu_with_metrics: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    start: float = 0.0
    unique: int = 0


def compare(case: Case, variants: Sequence[Variant], ground: Ground, options: argparse.Namespace) -> dict[str, Figures]:
    """Start one server of each variant, and give them the load in turns; so often as there are starts."""
    figures = {variant.name: Figures() for variant in variants}
    for start in range(options.starts):
        # each start in another order: the one before is still warm
        shifted = (*variants[start % len(variants) :], *variants[: start % len(variants)])
        _compare_once(case, shifted, ground, options, figures)
    return figures


def _compare_once(
    case: Case, variants: Sequence[Variant], ground: Ground, options: argparse.Namespace, figures: dict[str, Figures]
) -> None:
    measured, other = two_cores()
    load = Load(options.seconds, options.connections, case.keep_alive, case.mix, ground.folder)
    with ExitStack() as stack:
        servers = {}
        for number, variant in enumerate(variants):
            with pinned(measured):
                server = Server(variant.command(case.worker_type, ground), ground.folder / f"{number}.log")
            stack.callback(server.stop)
            servers[variant.name] = server
            figures[variant.name].start = server.start_seconds
            figures[variant.name].starts.append([])
        with pinned(other):
            for server in servers.values():
                load.run(server.url)
            for _ in range(options.rounds):
                for name, server in servers.items():
                    _turn(server, load, figures[name])
        for name, server in servers.items():
            figures[name].unique = max(map(unique_bytes, server.tree().workers))


def _turn(server: Server, load: Load, figures: Figures) -> None:
    tree = server.tree()
    begin = time.perf_counter()
    before = tree.cpu_seconds(with_metrics=False), tree.cpu_seconds(with_metrics=True)
    turn = load.run(server.url)
    after = tree.cpu_seconds(with_metrics=False), tree.cpu_seconds(with_metrics=True)
    figures.rate.append(turn.requests / (time.perf_counter() - begin))
    figures.p99.append(turn.p99)
    figures.cpu.append((after[0] - before[0]) / turn.requests * 1e6)
    figures.starts[-1].append(figures.cpu[-1])
    figures.cpu_with_metrics.append((after[1] - before[1]) / turn.requests * 1e6)


def show(report: Report, results: Sequence[tuple[Case, dict[str, Figures]]], variants: Sequence[Variant]) -> None:
    """Print the CPU time, then what else was seen."""
    costs: list[dict[str, Value]] = []
    others: list[dict[str, Value]] = []
    for case, figures in results:
        for variant in variants:
            who: dict[str, Value] = {
                "worker type": case.worker_type,
                "keep-alive": case.keep_alive,
                "label sets": "many" if case.mix else "one",
                "variant": variant.name,
            }
            mine, base = figures[variant.name], figures[variant.against]
            costs.append(who | _cost(mine, base))
            if variant.name == "promgun":
                what = f"{case.worker_type}: ratio at most {TARGET_RATIO}"
                costs[-1]["reached"] = report.check(what, fine=is_met(spread(_ratios(mine, base)), TARGET_RATIO))
            others.append(who | _beside(mine, base))
    report.table("Server CPU a request (µs)", costs)
    report.table("Beside it", others)


def _cost(mine: Figures, base: Figures) -> dict[str, Value]:
    cpu = spread(mine.cpu)
    ratios = spread(_ratios(mine, base))
    return {
        "CPU": cpu.median,
        "IQR": cpu.iqr,
        "least": min(mine.cpu),
        "with metrics process": statistics.median(mine.cpu_with_metrics),
        "ratio": ratios.median,
        "IQR of ratio": ratios.iqr,
        "ratio of least": min(mine.cpu) / min(base.cpu),
        "added": statistics.median(a - b for a, b in zip(mine.cpu, base.cpu, strict=True)),
    }


def _ratios(mine: Figures, base: Figures) -> list[float]:
    """Return the ratio of each start, or of each round where there is one start."""
    ratios = [
        [a / b for a, b in zip(ours, theirs, strict=True)]
        for ours, theirs in zip(mine.starts, base.starts, strict=True)
    ]
    return ratios[0] if len(ratios) == 1 else [statistics.median(rounds) for rounds in ratios]


def _beside(mine: Figures, base: Figures) -> dict[str, Value]:
    return {
        "requests/s": statistics.median(mine.rate),
        "p99 ms": statistics.median(mine.p99),
        "first answer ms": mine.start * 1e3,
        "later ms": (mine.start - base.start) * 1e3,
        "worker USS MiB": mib(mine.unique),
        "more MiB": mib(mine.unique - base.unique),
    }


# ---- ground


def statsd_sink(stack: ExitStack) -> int:
    """Listen for datagrams, read them, and forget them; return the port."""
    sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sink.bind(("127.0.0.1", 0))
    sink.settimeout(0.5)
    ended = threading.Event()
    stack.callback(ended.set)

    def drain() -> None:
        while not ended.is_set():
            with suppress(OSError):  # a timeout, so that the end is noticed
                sink.recv(1 << 16)

    threading.Thread(target=drain, daemon=True).start()
    return int(sink.getsockname()[1])


def _cases(options: argparse.Namespace) -> list[Case]:
    keep_alive = {"yes": (True,), "no": (False,), "both": (True, False)}[options.keep_alive]
    mixes = {"one": (False,), "many": (True,), "both": (False, True)}[options.label_sets]
    return [
        Case(worker_type, keep, mix)
        for worker_type in options.worker_types.split(",")
        # the sync worker ends every connection
        for keep, mix in product((False,) if worker_type == "sync" else keep_alive, mixes)
    ]


def _twin_cases(options: argparse.Namespace) -> list[twins.Case]:
    return list(dict.fromkeys(twins.Case(case.worker_type, case.keep_alive) for case in _cases(options)))


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__)
    parser.add_argument("--worker-types", default=",".join(_TYPES))
    parser.add_argument(
        "--variants", default="plain,plain-again,promgun,naive,statsd", help="plain has to be one of them"
    )
    parser.add_argument("--keep-alive", choices=("yes", "no", "both"), help="yes, and both with --python")
    parser.add_argument("--label-sets", choices=("one", "many", "both"), default="one")
    parser.add_argument("--starts", type=int, help="of the servers: 1, and 10 with --python")
    parser.add_argument("--rounds", type=int, help="of each start: 6, and 2 with --python")
    parser.add_argument("--seconds", type=int, default=1, help="a turn lasts")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--peers", action="store_true", help="gunicorn-prometheus-exporter too")
    parser.add_argument("--peers-venv", type=Path, metavar="DIR", help="keep the peers' environment there")
    group = parser.add_argument_group("by Python")
    group.add_argument(
        "--python", nargs="*", metavar="PATH", help="compare on these interpreters; without PATH on every one found"
    )
    group.add_argument("--only", choices=("process", "servers"), help="leave the other out")
    group.add_argument("--environments", type=Path, default=default_cache(), metavar="DIR", help="keep them there")
    group.add_argument("--batches", type=int, default=60, help="of requests, a start in process")
    group.add_argument("--size", type=int, default=40, help="requests in a batch")
    return parser


def _settle(options: argparse.Namespace) -> None:
    """Fill in what depends on other options."""
    by_python = options.python is not None
    if options.quick:
        options.worker_types, options.variants = "sync,gthread", "plain,promgun"
        options.batches, options.only = 20, options.only or "process"
    quick = options.quick
    options.starts = options.starts or ((2 if quick else 10) if by_python else 1)
    options.keep_alive = options.keep_alive or ("both" if by_python and not quick else "yes")
    options.rounds = options.rounds or (2 if by_python else 4 if quick else 6)


def main() -> None:
    """Run the benchmark."""
    options = _parser().parse_args()
    _settle(options)
    if options.python is not None:
        report = Report("overhead by Python")
        compare_pythons(report, options, _twin_cases(options))
        report.save(options.json)
        return
    chosen = [variant for variant in VARIANTS if variant.name in options.variants.split(",")]
    report = Report("overhead")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overhead-")))
        python = ""
        if options.peers:
            python = peers_python(options.peers_venv or folder / "peers")
            chosen += PEERS
        ground = Ground(folder, statsd_sink(stack), python)
        results = [(case, compare(case, chosen, ground, options)) for case in _cases(options)]
    show(report, results, chosen)
    report.save(options.json)


if __name__ == "__main__":
    main()
