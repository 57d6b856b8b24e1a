"""Gunicorn with promgun's eventlet worker class, and clients of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.support.sockets import connections_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

APPS = Path(__file__).parents[1] / "apps"
WORKER = "promgun.workers._eventlet_server.EventletWorker"
DEADLINE = 60.0
LISTENING = re.compile(r"Listening at: (\S+) ")
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Server:
    """A running ``gunicorn`` master; ``log`` is its error log, ``master`` its process."""

    def __init__(self, master: subprocess.Popen[bytes], log: Path) -> None:
        self.master = master
        self.log = log
        self.port = 0
        self.tls: ssl.SSLContext | None = None

    @property
    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def addresses(self) -> list[str]:
        """Read back where it listens: ``http://127.0.0.1:port`` or ``unix:path``."""
        found = LISTENING.search(self.text)
        return found[1].split(",") if found else []

    def workers(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.master.pid).children()]

    def said(self, words: str) -> None:
        until(lambda: words in self.text, words)

    def connect(self, *, tls: bool = True) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        return self.tls.wrap_socket(sock) if self.tls and tls else sock

    def get(self, path: str = "/") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        connection.sock = self.connect()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def send(self, number: signal.Signals) -> None:
        self.master.send_signal(number)

    def ended(self, seconds: float = DEADLINE) -> float:
        """Wait for the master's end and return how many seconds that took."""
        begun = time.monotonic()
        assert self.master.wait(seconds) == 0, self.text
        return time.monotonic() - begun


@contextmanager
def serve(
    folder: Path, *options: str, bind: str = "127.0.0.1:0", warnings: str = "error", **env: str
) -> Iterator[Server]:
    """Run gunicorn with our worker; whatever happens, no process of its group outlives the block."""
    log = folder / "error.log"
    command = [sys.executable, "-W", warnings, "-m", "gunicorn", "--worker-class", WORKER]
    command += ["--no-control-socket", "--log-file", str(log), "--chdir", str(APPS)]
    command += ["--bind", bind] if bind else []
    with (folder / "stderr").open("wb") as stderr:
        master = subprocess.Popen(
            [*command, *options, "eventlet_app:app"],
            stdout=stderr,
            stderr=stderr,
            env={**os.environ, **env},
            start_new_session=True,
        )
    try:
        server = Server(master, log)
        until(lambda: "Using worker" in server.text or master.poll() is not None, "listening")
        assert master.poll() is None, server.text + (folder / "stderr").read_text()
        server.port = int((server.addresses() or [bind])[0].rpartition(":")[2])
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(master.pid, signal.SIGKILL)
        master.wait()


def polled(pid: int) -> set[str]:
    """Find the inodes a process waits for with epoll."""
    inodes: set[str] = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            inodes.update(re.findall(r"^tfd:.* ino:(\w+)", info.read_text(), re.MULTILINE))
    return inodes


def refused(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def answer(sock: socket.socket) -> tuple[HTTPResponse, bytes]:
    response = HTTPResponse(sock)
    response.begin()
    return response, response.read()


def closed(sock: socket.socket) -> bool:
    with suppress(ConnectionResetError):
        return sock.recv(1) == b""
    return True


@contextmanager
def in_flight(server: Server, path: str, count: int = 1) -> Iterator[list[tuple[int, bytes]]]:
    """Have ``count`` requests under way; the list holds the answers once the block has ended."""
    answers: list[tuple[int, bytes]] = []

    def fetch() -> None:
        with suppress(HTTPException, OSError):
            answers.append(server.get(path))

    threads = [threading.Thread(target=fetch, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    until(lambda: server.text.count("sleeping") == count, "requests in the application")
    yield answers
    for thread in threads:
        thread.join(DEADLINE)


def established(server: Server) -> int:
    """Count the connections that the workers hold."""
    return sum(
        connection.status == psutil.CONN_ESTABLISHED for pid in server.workers() for connection in connections_of(pid)
    )
