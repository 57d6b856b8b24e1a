"""One real worker of each variant in a process of its own, driven over loopback connections, in lockstep.

The variants are forked from one process, so that the hash seed and the layout of memory are the same, and each has the
interpreter's inline caches to itself, as a real worker has. The requests of a batch are sent before the clock starts:
what is timed is the worker's own code, without waiting and without a client beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from apps import Application, naive, plain
from pauses import UNTIL_SETTLED, Pause

_HEAD = b"GET / HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: benchmark\r\nAccept: */*\r\n"
_WARM_UP = 8  # requests before each batch: meanwhile another twin has used the processor's caches

#: --worker-type: the plain class and ours.
CLASSES = {
    "sync": ("gunicorn.workers.sync:SyncWorker", "promgun.workers.sync:PrometheusWorker"),
    "gthread": ("gunicorn.workers.gthread:ThreadWorker", "promgun.workers.gthread:PrometheusThreadWorker"),
    "gevent": ("gunicorn.workers.ggevent:GeventWorker", "promgun.workers.gevent:PrometheusGeventWorker"),
    "eventlet": (
        "promgun.workers._eventlet_server:EventletWorker",
        "promgun.workers.eventlet:PrometheusEventletWorker",
    ),
}
#: ``uncached`` is promgun with ``--no-config-cache``, ``measuring`` with ``--no-server-shortcuts`` too: Gunicorn's own
#: functions stay as they are.
VARIANTS = ("plain", "promgun", "uncached", "measuring", "naive")
OURS = frozenset({"promgun", "uncached", "measuring"})
_GREEN = frozenset({"gevent", "eventlet"})


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: ``keep_alive`` sends all requests of a batch down one connection."""

    worker_type: str
    keep_alive: bool


def drive(case: Case, variants: tuple[str, ...], batches: int, size: int) -> dict[str, list[float]]:
    """Return, for each variant, the microseconds of CPU a request in each of ``batches`` batches of ``size``."""
    with contextlib.ExitStack() as stack:
        twins = {variant: stack.enter_context(_twin(case, variant, size)) for variant in variants}
        results: dict[str, list[float]] = {variant: [] for variant in variants}
        for batch in range(batches + 1):
            # In random order, because each finds in the processor's caches what the one before it left there.
            for variant in random.sample(variants, len(variants)):
                figure = twins[variant]()
                if batch:
                    results[variant].append(figure)
    return results


@contextlib.contextmanager
def _twin(case: Case, variant: str, size: int) -> Iterator[Callable[[], float]]:
    """Fork a process that runs a batch each time the function is called, which returns its microseconds a request."""
    worker_class = _load(CLASSES[case.worker_type][variant in OURS])
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        status = 1
        try:
            _serve(case, variant, worker_class, theirs, size)
            status = 0
        except BaseException:  # noqa: BLE001 - this process must not return into the caller's code
            traceback.print_exc()
        finally:
            os._exit(status)
    theirs.close()

    def batch() -> float:
        ours.sendall(b"!")
        answer = ours.recv(64)
        if not answer:
            raise SystemExit(f"The {variant} {case.worker_type} worker failed, see above")
        return float(answer)

    try:
        yield batch
    finally:
        ours.close()
        os.waitpid(pid, 0)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


# ---- in the child


def _serve(case: Case, variant: str, worker_class: Any, control: Any, size: int) -> None:
    with tempfile.TemporaryDirectory(prefix="twins-") as folder, contextlib.ExitStack() as stack:
        worker = _boot(case, variant, worker_class, Path(folder), stack)
        batch, pause = _Batch(worker, case), Pause(worker)
        batch.run(_WARM_UP)
        if variant in OURS:
            end = time.monotonic() + UNTIL_SETTLED
            while time.monotonic() < end:
                batch.run(size)
        pause.begin()
        # The control socket is older than any monkey patch: its methods block for real, as they should.
        while control.recv(1):
            pause.end()
            batch.run(_WARM_UP)
            figure = batch.run(size)
            pause.begin()
            control.sendall(str(figure).encode())


def _boot(case: Case, variant: str, worker_class: Any, folder: Path, stack: contextlib.ExitStack) -> Any:
    """Return a worker that has booted but does not listen."""
    from gunicorn.config import Config  # noqa: PLC0415 - same
    from gunicorn.glogging import Logger  # noqa: PLC0415 - same

    import promgun.config.gunicorn_settings  # noqa: F401, PLC0415 - only in children: makes our settings known
    from promgun.store.new_file import Owner  # noqa: PLC0415 - same
    from promgun.store.process import STORE  # noqa: PLC0415 - same
    from promgun.store.run_places import create_private  # noqa: PLC0415 - same

    application: Application = plain
    if variant in OURS:
        directory = create_private(Owner())
        stack.callback(directory.close)
        STORE.open(directory)
    elif variant == "naive":
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        application = naive()
    cfg = Config()
    cfg.set("worker_class", case.worker_type if case.worker_type != "eventlet" else worker_class)
    cfg.set("threads", 4 if case.worker_type == "gthread" else 1)
    cfg.set("errorlog", str(folder / "error.log"))
    cfg.set("config_cache", variant == "promgun")
    cfg.set("server_shortcuts", variant != "measuring")

    class Idle(worker_class):  # type: ignore[misc] # chosen at run time
        """Boots like its parent, and leaves the serving to us."""

        def run(self) -> None:
            """Get ready to serve, as ours do when their ``run`` begins; plain ones have nothing to do."""
            if variant in OURS:
                self.enter_service()

    class App:
        """What a worker asks of Gunicorn's application."""

        @staticmethod
        def wsgi() -> Application:
            """Return the callable."""
            return application

    log = Logger(cfg)
    listeners = [_listener(case, cfg, log)]
    # An async worker would put a socket of its own in the listener's place.
    worker = Idle(1, os.getppid(), [] if case.worker_type in _GREEN else listeners, App(), 30, cfg, log)
    worker.promgun_benchmark_listener = listeners[0]
    worker.init_process()
    return worker


def _listener(case: Case, cfg: Any, log: Any) -> Any:
    if case.worker_type in _GREEN:
        return socket.create_server(("127.0.0.1", 0), backlog=1024)
    from gunicorn.sock import TCPSocket  # noqa: PLC0415 - only in children

    cfg.set("backlog", 1024)
    return TCPSocket(("127.0.0.1", 0), cfg, log)


class _Batch:
    """Sends requests to a listener, then times how long the worker takes for them."""

    def __init__(self, worker: Any, case: Case) -> None:
        self._worker = worker
        self._keep_alive = case.keep_alive
        ending = b"\r\n" if case.keep_alive else b"Connection: close\r\n\r\n"
        self._request = _HEAD + ending
        self._listener = worker.promgun_benchmark_listener
        self._serve = {"sync": self._sync, "gthread": self._threads}.get(case.worker_type, self._green)
        self._client_socket: Callable[[Any], Any] = lambda sock: sock
        self._pause: Callable[[], None] = lambda: None
        if case.worker_type == "gthread":
            worker.tpool = _InlinePool()
        if case.worker_type == "eventlet":
            self._client_socket = import_module("promgun.workers._eventlet_server").ClientSocket
        if case.worker_type in _GREEN:
            sleep = import_module(case.worker_type).sleep
            self._pause = lambda: sleep(0)  # lets the hub drop timers that were cancelled

    def run(self, size: int) -> float:
        """Return microseconds of CPU a request."""
        connections, each = (1, size) if self._keep_alive else (size, 1)
        clients = []
        for _ in range(connections):
            client = socket.create_connection(self._listener.getsockname())
            client.sendall(self._request * each)
            client.shutdown(socket.SHUT_WR)
            clients.append(client)
        seconds = self._serve(connections, each)
        for client in clients:
            answered = _answers(client)
            client.close()
            if answered != each:
                raise RuntimeError(f"{each} requests sent, {answered} answered")
        self._pause()
        return seconds / size * 1e6

    def _sync(self, connections: int, _: int) -> float:
        # As SyncWorker.run_for_one: a sign of life, then the next client.
        worker, listener = self._worker, self._listener
        begin = time.process_time()
        for _ in range(connections):
            worker.notify()
            worker.accept(listener)
        return time.process_time() - begin

    def _threads(self, connections: int, each: int) -> float:
        # As the main loop does when a request wakes it; the pool's part runs at once.
        worker, listener = self._worker, self._listener
        begin = time.process_time()
        for _ in range(connections):
            worker.notify()
            worker.accept(listener)
            for _ in range(each - 1):
                worker.notify()
                worker.enqueue_req(worker.tpool.conn)
            worker.tpool.conn.close()
        return time.process_time() - begin

    def _green(self, connections: int, _: int) -> float:
        # Accepting is the hub's here, and a sign of life comes once a second.
        accepted = [self._listener.accept() for _ in range(connections)]
        clients = [(self._client_socket(sock), address) for sock, address in accepted]
        handle, listener = self._worker.handle, self._listener
        begin = time.process_time()
        for client, address in clients:
            handle(listener, client, address)
        return time.process_time() - begin


class _InlinePool:
    """A thread pool that does everything at once, and remembers the connection that it was given last."""

    conn: Any = None

    def submit(self, function: Callable[[Any], Any], conn: Any) -> _InlinePool:
        """Run the function."""
        self.conn = conn
        function(conn)
        return self

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Leave out what the main loop does afterwards: it is not ours to measure."""


def _answers(client: Any) -> int:
    received = b""
    while data := client.recv(1 << 16):
        received += data
    return received.count(b"HTTP/1.1 200 ")


def main() -> None:
    """Drive one case in a fresh interpreter, of whatever Python: TYPE yes|no VARIANT,… BATCHES SIZE; print JSON."""
    worker_type, keep_alive, variants, batches, size = sys.argv[1:]
    case = Case(worker_type, keep_alive == "yes")
    print(json.dumps(drive(case, tuple(variants.split(",")), int(batches), int(size))))


if __name__ == "__main__":
    main()
