"""Running requests on the scoreboard: up to 64 a slot, each in a region of fixed size behind the board's cells.

A region is 256 bytes: int64 start (nanoseconds of ``CLOCK_MONOTONIC``, 0 when free), int64 phase, then text: method,
route, client, request id and path in
UTF-8, apart by NUL, cut to the bound. The start is written last and cleared first, so what a reader or a master finds
after SIGKILL is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

OFFSET = 1024
REGIONS = 64
REGION_SIZE = 256
TEXT_SIZE = REGION_SIZE - 16
END = OFFSET + REGIONS * REGION_SIZE


class Phase(IntEnum):
    """How far a request has come."""

    READING = 1
    QUEUED = 2
    APPLICATION = 3
    WRITING = 4


@dataclass(frozen=True, slots=True)
class RunningRequest:
    """A request that a worker is serving: ``start`` in nanoseconds of the monotonic clock; texts are harmless to
    print.
    """

    start: int
    phase: Phase
    method: str = ""
    route: str = ""
    client: str = ""
    request_id: str = ""
    path: str = ""

    def age(self, now_ns: int) -> float:
        """Return seconds since the request began."""
        return max(0, now_ns - self.start) / 1e9

    def __str__(self) -> str:
        parts = [self.method or "?", self.path or "(head not read)"]
        if self.client:
            parts.append(f"from {self.client}")
        if self.request_id:
            parts.append(f"request id {self.request_id}")
        return " ".join(parts)


_APPLICATION = int(Phase.APPLICATION)


class RunningRequests:
    """The regions as their one writer, the worker, sees them; ``memory`` is the whole mapped file."""

    def __init__(self, memory: Any) -> None:
        self._bytes = memoryview(memory).cast("B")
        self._cells = self._bytes.cast("q")
        self.clear()

    def clear(self) -> None:
        """Free every region."""
        for region in range(REGIONS):
            self._cells[(OFFSET + region * REGION_SIZE) // 8] = 0
        # A list's pop and append are atomic: threads need no lock. The lowest region is handed out first.
        self._free = list(range(REGIONS - 1, -1, -1))

    def move(self, memory: Any) -> None:
        """Go on in other memory; what is written down now goes along."""
        target = memoryview(memory).cast("B")
        target[OFFSET:END] = self._bytes[OFFSET:END]
        self._bytes = target
        self._cells = target.cast("q")

    def take(self, start: int, phase: int) -> int:
        """Write down that somebody is reading or queued; return the region, -1 when all are taken."""
        try:
            region = self._free.pop()
        except IndexError:
            return -1
        cell = (OFFSET + region * REGION_SIZE) // 8
        self._cells[cell + 1] = phase
        self._cells[cell] = start
        return region

    def describe(self, region: int, start: int, text: str) -> None:
        """Write down what the request is, once it is with the application."""
        if region < 0:
            return
        at = OFFSET + region * REGION_SIZE
        cell = at // 8
        cells = self._cells
        cells[cell] = 0
        self._bytes[at + 16 : at + REGION_SIZE] = text.encode("utf-8", "replace")[:TEXT_SIZE].ljust(TEXT_SIZE, b"\0")
        cells[cell + 1] = _APPLICATION
        cells[cell] = start

    def phase(self, region: int, phase: int) -> None:
        """Note that a request has come further."""
        if region >= 0:
            self._cells[(OFFSET + region * REGION_SIZE) // 8 + 1] = phase

    def leave(self, region: int) -> None:
        """Free a region."""
        if region >= 0:
            self._cells[(OFFSET + region * REGION_SIZE) // 8] = 0
            self._free.append(region)


def read_running(data: bytes | bytearray | memoryview) -> Iterator[RunningRequest]:
    """Yield the requests written down in the content of a lock file; what cannot be right is left out."""
    whole = memoryview(data)[: len(data) - len(data) % 8]
    cells = whole.cast("B").cast("q")
    for region in range(REGIONS):
        at = OFFSET + region * REGION_SIZE
        if at + REGION_SIZE > len(whole):
            return
        start, phase = cells[at // 8], cells[at // 8 + 1]
        if start <= 0 or not Phase.READING <= phase <= Phase.WRITING:
            continue
        if phase <= Phase.QUEUED:
            # nothing is known of it yet: what stands there is the last request's
            yield RunningRequest(start, Phase(phase))
            continue
        text = bytes(whole[at + 16 : at + REGION_SIZE]).rstrip(b"\0").decode("utf-8", "replace")
        method, route, client, request_id, path = (*text.split("\0", 4), "", "", "", "", "")[:5]
        yield RunningRequest(
            start, Phase(phase), *(harmless(item) for item in (method, route, client, request_id, path))
        )


def harmless(text: str) -> str:
    """Return ``text`` with everything that is not printable (control characters, line breaks, bidirectional marks) as
    ``?``.
    """
    return "".join(character if character.isprintable() else "?" for character in text)
