"""Recycling for a long time: files, bytes, memory and the time of a scrape must not grow.

First processes are recycled on the store alone (fork, claim a slot, count, die; every other one by SIGKILL), then a
real server for some minutes: a small ``--max-requests``, a worker killed every second, a reload every five. Ends with
1 if anything grew, or if any total is not exact, or sank.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from pathlib import Path

from psutil import Error
from servers import Server, promgun
from shared import Report, Value, arguments, cpu_seconds, fast_folder, mib, resident_bytes
from stores import files_and_bytes

from promgun.collect.page import Collector
from promgun.exposition.formats import Page
from promgun.store.board import Role
from promgun.store.new_file import Owner
from promgun.store.process import STORE
from promgun.store.run_places import take_over

ALIVE = 4  # processes alive at once, in the first part
COUNTED = 25  # by each of them
WARM_UP = 100  # processes after which everything has to stay what it is
SCRAPES = 60
WORKERS = 3
SLOWER = 1.25  # what the noise of a machine makes of equal times, in turns
SLOWER_LATER = 2.0  # the same, a minute apart: files that pile up would cost more
MEMORY = 3 << 20


# ---- processes on the store


def recycle(report: Report, processes: int) -> None:
    """Recycle processes on the store, four alive at a time."""
    STORE.app.publish()
    import prometheus_client  # noqa: F401, PLC0415 - before the forks, so that no child pays for it

    with tempfile.TemporaryDirectory(prefix="soak-", dir=fast_folder()) as name:
        folder = Path(name)
        directory = take_over(folder / "store", Owner())
        try:
            STORE.open(directory)
            done = 0
            copies = []
            for checkpoint in sorted({min(WARM_UP, processes), processes // 2, processes}):
                _run(checkpoint - done)
                done = checkpoint
                copies.append((done, _copy(directory.path, folder / f"after-{done}")))
        finally:
            directory.close()
        times = _scrape_in_turns([copy for _, copy in copies])
        rows = [_row(done, copy, best) for (done, copy), best in zip(copies, times, strict=True)]
    report.table("Processes on the store", rows)
    first, last = rows[0], rows[-1]
    report.check("files as after the first hundred", fine=last["files"] == first["files"])
    report.check("bytes as after the first hundred", fine=last["KiB"] == first["KiB"])
    report.check("as many slots as processes at once", fine=all(row["slots"] == ALIVE for row in rows))
    report.check("scrape time as after the first hundred", fine=times[-1] <= times[0] * SLOWER)
    report.check("every total exact", fine=all(row["counted"] == row["to count"] for row in rows))


def _copy(store: Path, copy: Path) -> Path:
    # cp keeps the slots' files sparse
    subprocess.run(["cp", "-a", "--sparse=always", str(store), str(copy)], check=True)
    return copy


def _scrape_in_turns(stores: Sequence[Path]) -> list[float]:
    """Return the best CPU time in seconds of a warm scrape of each store: in turns, so that noise of the machine meets
    all of them.
    """
    collectors = [Collector(store) for store in stores]
    times: list[list[float]] = [[] for _ in stores]
    for _ in range(SCRAPES):
        for collector, figures in zip(collectors, times, strict=True):
            begin = time.process_time()
            _page(collector)
            figures.append(time.process_time() - begin)
    return [min(figures) for figures in times]


def _page(collector: Collector) -> str:
    from prometheus_client import generate_latest  # noqa: PLC0415 - after our values are published

    return generate_latest(Page(collector.collect())).decode()


def _row(processes: int, store: Path, best: float) -> dict[str, Value]:
    files, size = files_and_bytes(store)
    return {
        "processes": processes,
        "files": files,
        "KiB": size / 1024,
        "slots": len(list((store / "slots").glob("*.lock"))),
        "scrape ms, best": best * 1e3,
        "counted": total_of(_page(Collector(store)), "soak_requests_total"),
        "to count": processes * COUNTED,
    }


def _run(processes: int) -> None:
    alive: set[int] = set()
    for number in range(processes):
        if len(alive) == ALIVE:
            alive.discard(os.wait()[0])
        pid = os.fork()
        if not pid:
            try:
                _count()
                if number % 2:
                    os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(0)
        alive.add(pid)
    for pid in alive:
        os.waitpid(pid, 0)


def _count() -> None:
    from prometheus_client import CollectorRegistry, Counter, Histogram  # noqa: PLC0415 - after ours are published

    STORE.own_slot(Role.WORKER)
    registry = CollectorRegistry()
    requests = Counter("soak_requests", "Requests.", ["view"], registry=registry)
    seconds = Histogram("soak_seconds", "Time.", registry=registry)
    for number in range(COUNTED):
        requests.labels(f"view_{number % 5}").inc()
        seconds.observe(number)


def total_of(page: str, name: str) -> float:
    """Return the sum over all series of a name on a page."""
    lines = (line for line in page.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


# ---- a server


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """The server at one moment."""

    seconds: float
    spawned: float
    requests: float
    files: int
    size: int
    master: int
    metrics: int
    scrape_ms: float

    def row(self) -> dict[str, Value]:
        """Spell the figures."""
        return {
            "seconds": self.seconds,
            "workers so far": self.spawned,
            "requests": self.requests,
            "files": self.files,
            "KiB": self.size / 1024,
            "master MiB": mib(self.master),
            "metrics process MiB": mib(self.metrics),
            "scrape ms of CPU": self.scrape_ms,
        }


def serve(report: Report, minutes: float) -> None:
    """Keep a server under load while its workers come and go."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-", dir=fast_folder())))
        options = ["--bind", "127.0.0.1:0", "--workers", str(WORKERS), "--max-requests", "200"]
        options += ["--metrics-dir", str(folder / "store"), "apps:plain"]
        server = Server(promgun(options), folder / "server.log")
        stack.callback(server.stop)
        ended = threading.Event()
        clients = [threading.Thread(target=_ask, args=(server.url, ended)) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            figures = _watch(report, server, folder / "store", minutes * 60)
        finally:
            ended.set()
            for client in clients:
                client.join()
    step = max(1, len(figures) // 8)
    report.table("A server", [each.row() for each in [*figures[::step], figures[-1]]])
    _judge(report, figures)


def _ask(url: str, ended: threading.Event) -> None:
    address = url.removeprefix("http://")
    while not ended.is_set():
        # A worker that is killed takes its requests along.
        with suppress(OSError, HTTPException):
            connection = HTTPConnection(address, timeout=10)
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
        time.sleep(0.001)


def _watch(report: Report, server: Server, store: Path, seconds: float) -> list[ServerFigures]:
    """Kill, reload and look, once a second."""
    figures: list[ServerFigures] = []
    begin = time.monotonic()
    tick = 0
    while time.monotonic() - begin < seconds:
        tick += 1
        tree = server.tree()
        with suppress(ProcessLookupError):
            os.kill(random.choice(tree.workers), signal.SIGKILL)
        if tick % 5 == 0:
            server.signal(signal.SIGHUP)
        time.sleep(1.0)
        try:
            figures.append(_look_at(server, store, time.monotonic() - begin))
        except (OSError, Error) as error:
            report.check(f"a scrape after {time.monotonic() - begin:.0f} s: {error}", fine=False)
            report.say(server.last_lines())
    return figures


def _look_at(server: Server, store: Path, seconds: float) -> ServerFigures:
    tree = server.tree()
    before = cpu_seconds(tree.metrics)
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        page = answer.read().decode()
    used = cpu_seconds(tree.metrics) - before
    files, size = files_and_bytes(store)
    return ServerFigures(
        seconds=seconds,
        spawned=total_of(page, "gunicorn_worker_spawns_total"),
        requests=total_of(page, "gunicorn_requests_total"),
        files=files,
        size=size,
        master=resident_bytes(tree.master),
        metrics=resident_bytes(tree.metrics),
        scrape_ms=used * 1e3,
    )


def _judge(report: Report, figures: Sequence[ServerFigures]) -> None:
    third = max(1, len(figures) // 3)
    # The first moments belong to the start: workers boot, the reader learns the keys.
    early, late = figures[third // 2 : third // 2 + third], figures[-third:]

    def typical(part: Sequence[ServerFigures], name: str) -> float:
        values: list[float] = [getattr(each, name) for each in part]
        return statistics.median(values)

    report.check("files flat", fine=max(each.files for each in late) <= max(each.files for each in figures[:-third]))
    report.check("bytes flat", fine=max(each.size for each in late) <= max(each.size for each in figures[:-third]))
    for name in ("master", "metrics"):
        growth = typical(late, name) - typical(early, name)
        report.check(f"memory of the {name} process flat ({mib(growth):+.2f} MiB)", fine=growth <= MEMORY)
    ratio = min(each.scrape_ms for each in late) / min(each.scrape_ms for each in early)
    report.check(f"scrape time flat (times {ratio:.2f})", fine=ratio <= SLOWER_LATER)
    rising = all(after.requests >= before.requests for before, after in pairwise(figures))
    report.check("no total ever sinks", fine=rising)


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=1.5, help="of the server; 0 leaves it out")
    parser.add_argument("--processes", type=int, default=10_000, help="on the store alone; 0 leaves them out")
    options: argparse.Namespace = parser.parse_args()
    if options.quick:
        options.minutes, options.processes = 0.2, 400
    report = Report("soak")
    if options.processes:
        recycle(report, options.processes)
    if options.minutes:
        serve(report, options.minutes)
    report.save(options.json)
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
