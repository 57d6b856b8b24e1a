"""Latency at a constant rate, half of what plain Gunicorn can serve: plain Gunicorn and promgun in turns.

One worker each, on one core; the client is on the other and keeps to a schedule (open_loop.py). Percentiles are taken
of each turn; a ratio compares the turns of one round.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from apps import BODY
from load import Load
from open_loop import OpenLoop
from servers import Server
from shared import Report, Value, arguments, is_met, pinned, spread, two_cores
from variants import VARIANTS, Ground

_SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
TARGET_RATIO = 1.05
_LEAST_ROUNDS = 2


@dataclass(slots=True)
class Figures:
    """What one variant did: milliseconds by percentile, a value a turn."""

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _SHARES})
    requests: int = 0
    failed: int = 0


def compare(
    worker_type: str, folder: Path, options: argparse.Namespace, deadline: float
) -> tuple[float, dict[str, Figures]]:
    """Start a server of each variant, and give them the load in turns, two rounds at least and no more that would end
    after ``deadline`` on the monotonic clock; return the rate and what was measured.
    """
    variants = [variant for variant in VARIANTS if variant.name in options.variants.split(",")]
    figures = {variant.name: Figures() for variant in variants}
    keep_alive = worker_type != "sync"
    measured, other = two_cores()
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for variant in variants:
            log = folder / f"{worker_type}-{variant.name}.log"
            with pinned(measured):
                server = Server(variant.command(worker_type, Ground(folder, 0, "")), log)
            stack.callback(server.stop)
            servers[variant.name] = server
        with pinned(other):
            rate = _capacity(servers, folder, keep_alive=keep_alive, options=options) * float(options.share)
            rate = float(options.rate or rate)
            for done in range(options.rounds):
                if done >= _LEAST_ROUNDS and time.monotonic() + options.seconds * len(servers) > deadline:
                    break
                for name, server in servers.items():
                    _turn(server, figures[name], rate, keep_alive=keep_alive, options=options)
    return rate, figures


def _capacity(servers: dict[str, Server], folder: Path, *, keep_alive: bool, options: argparse.Namespace) -> float:
    """Return how many requests a second plain Gunicorn answers; all servers are warm afterwards."""
    load = Load(options.seconds, options.connections, keep_alive, mix=False, folder=folder)
    answered = {name: load.run(server.url).requests for name, server in servers.items()}
    return answered["plain"] / float(options.seconds)


def _turn(server: Server, figures: Figures, rate: float, *, keep_alive: bool, options: argparse.Namespace) -> None:
    port = urlsplit(server.url).port or 0
    found = OpenLoop(port, rate, options.connections, BODY, keep_alive=keep_alive).run(options.seconds)
    figures.requests += len(found.answered)
    figures.failed += found.failed
    for name, share in _SHARES.items():
        figures.milliseconds[name].append(found.percentile(share) * 1e3)


def show(report: Report, results: Sequence[tuple[str, float, dict[str, Figures]]]) -> None:
    """Print the percentiles, and how they compare with plain Gunicorn's."""
    rows: list[dict[str, Value]] = []
    for worker_type, rate, figures in results:
        for variant, mine in figures.items():
            row: dict[str, Value] = {"worker type": worker_type, "requests/s": int(rate), "variant": variant}
            row |= {"rounds": len(mine.milliseconds["p50"]), "requests": mine.requests, "failed": mine.failed}
            for name in _SHARES:
                around = spread(mine.milliseconds[name])
                row |= {f"{name} ms": f"{around.median:.2f} ± {around.iqr / 2:.2f}"}
                if variant != "plain":
                    row |= {f"{name} ratio": _ratio(report, worker_type, variant, name, figures)}
            rows.append(row)
    report.table("Latency at a constant rate", rows)


def _ratio(report: Report, worker_type: str, variant: str, name: str, figures: dict[str, Figures]) -> str:
    pairs = zip(figures[variant].milliseconds[name], figures["plain"].milliseconds[name], strict=True)
    around = spread([ours / plain for ours, plain in pairs])
    if variant == "promgun":
        fine = is_met(around, TARGET_RATIO)
        report.check(f"{worker_type}, {name}: at most {TARGET_RATIO} of plain Gunicorn's", fine=fine)
    return f"{around.median:.3f} ± {around.iqr / 2:.3f}"


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__)
    parser.add_argument("--worker-types", default="sync,gthread,gevent,eventlet")
    parser.add_argument("--variants", default="plain,plain-again,promgun", help="plain has to be one of them")
    parser.add_argument("--share", type=float, default=0.5, help="of what plain Gunicorn can serve")
    parser.add_argument("--rate", type=float, help="requests a second, instead of a share")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=3, help="a turn lasts")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument(
        "--within", type=float, metavar="SECONDS", help="all of it, with fewer rounds where there is no time for more"
    )
    return parser


def main() -> None:
    """Run the benchmark."""
    options = _parser().parse_args()
    if options.quick:
        options.worker_types, options.variants = "gthread", "plain,promgun"
        options.rounds, options.seconds = 4, 2
    report = Report("latency")
    with tempfile.TemporaryDirectory(prefix="latency-") as folder:
        results = []
        begin, worker_types = time.monotonic(), options.worker_types.split(",")
        for number, worker_type in enumerate(worker_types, 1):
            # Each type ends when its share of the time is over, and stopping its servers takes a second.
            share = number / len(worker_types) * options.within - 1 if options.within else math.inf
            rate, figures = compare(worker_type, Path(folder), options, begin + share)
            results.append((worker_type, rate, figures))
    show(report, results)
    report.save(options.json)


if __name__ == "__main__":
    main()
