"""A client with a schedule: requests become due at a constant rate, whether or not those before have been answered.

A latency counts from the moment at which its request was due. A server that stalls is charged for every request that
became due meanwhile; a client that waits for an answer before it asks again leaves those out (coordinated omission).
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field

_HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: benchmark\r\nAccept: */*\r\n"
#: How long an answer may take after the last request was due, in seconds.
_PATIENCE = 5.0


@dataclass(slots=True)
class Latencies:
    """Seconds from due to answered, and the number of requests that were not answered."""

    answered: list[float] = field(default_factory=list)
    failed: int = 0

    def percentile(self, share: float) -> float:
        """Return the latency that this share of the requests kept to; one without an answer was never in time."""
        in_order = sorted(self.answered) + [float("inf")] * self.failed
        return in_order[min(len(in_order) - 1, int(len(in_order) * share))]


class OpenLoop:
    """Sends ``rate`` requests a second over at most ``connections`` connections, and reads answers ending in ``body``.

    Requests that are due while no connection is free wait for one, and their latency grows meanwhile.
    """

    def __init__(self, port: int, rate: float, connections: int, body: bytes, *, keep_alive: bool) -> None:
        self._address = ("127.0.0.1", port)
        self._rate = rate
        self._body = body
        self._keep_alive = keep_alive
        self._request = _HEAD + (b"\r\n" if keep_alive else b"Connection: close\r\n\r\n")
        self._free: list[socket.socket | None] = [None] * connections

    def run(self, seconds: float) -> Latencies:
        """Put the load on the server for some seconds."""
        # A collection of ours would be taken for a latency of the server's.
        gc.collect()
        gc.disable()
        try:
            return self._run(int(seconds * self._rate))
        finally:
            gc.enable()
            for sock in self._free:
                if sock is not None:
                    sock.close()

    def _run(self, total: int) -> Latencies:
        result = Latencies()
        waiting: deque[float] = deque()
        busy: dict[socket.socket, tuple[float, bytes]] = {}
        clock, start, scheduled = time.perf_counter, time.perf_counter(), 0
        last_due = start + total / self._rate
        while scheduled < total or waiting or busy:
            now = clock()
            if now > last_due + _PATIENCE:
                break
            while scheduled < total and (due := start + scheduled / self._rate) <= now:
                waiting.append(due)
                scheduled += 1
            while waiting and self._free:
                self._send(waiting.popleft(), busy, result)
            wait = start + scheduled / self._rate - clock() if scheduled < total else _PATIENCE
            ready, _, _ = select.select(list(busy), [], [], max(0.0, wait))
            for sock in ready:
                self._receive(sock, busy, result)
        result.failed += len(waiting) + len(busy)
        for sock in busy:
            sock.close()
        return result

    def _send(self, due: float, busy: dict[socket.socket, tuple[float, bytes]], result: Latencies) -> None:
        sock = self._free.pop()
        try:
            if sock is None:
                sock = socket.create_connection(self._address, timeout=_PATIENCE)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(self._request)
        except OSError:
            self._failed(sock, result)
            return
        busy[sock] = due, b""

    def _receive(self, sock: socket.socket, busy: dict[socket.socket, tuple[float, bytes]], result: Latencies) -> None:
        due, received = busy.pop(sock)
        try:
            data = sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._failed(sock, result)
            return
        received += data
        if not received.endswith(self._body):
            busy[sock] = due, received
            return
        result.answered.append(time.perf_counter() - due)
        if self._keep_alive:
            self._free.append(sock)
        else:
            sock.close()
            self._free.append(None)

    def _failed(self, sock: socket.socket | None, result: Latencies) -> None:
        result.failed += 1
        self._free.append(None)
        if sock is not None:
            sock.close()
