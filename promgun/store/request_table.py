"""Running requests on the scoreboard: up to 64 a slot, each in a region of fixed size behind the board's cells.

A region is 256 bytes: text (method, route, client, request id and path in UTF-8, apart by NUL, cut to the bound), then
three int64: phase, start (nanoseconds of ``CLOCK_MONOTONIC``, 0 when free) and busy. Text is looked at only when the
phase says that there is some, and it is written before the phase is: what a reader or a master finds after SIGKILL is
whole.

Busy is what the requests of this region took together, less the clock while one is running: one store begins a request
and one ends it, so a copy of the cell is right at any instant. It is negative exactly while a request is running.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Any

OFFSET = 1024
REGIONS = 64
REGION_SIZE = 256
TEXT_SIZE = REGION_SIZE - 24
END = OFFSET + REGIONS * REGION_SIZE

#: The same in cells; a region is known by its first cell.
FIRST = OFFSET // 8
STEP = REGION_SIZE // 8
LAST = END // 8
PHASE, START, BUSY = TEXT_SIZE // 8, TEXT_SIZE // 8 + 1, TEXT_SIZE // 8 + 2
_ALL = range(LAST - STEP, FIRST - STEP, -STEP)
#: No region: all were taken.
NOWHERE = -1

#: ``describe(cells, 8 * region, text, phase, start)`` writes down what a request is, in this order: the text stands
#: there before the phase says so.
describe = Struct(f"={TEXT_SIZE}sqq").pack_into


class Phase(IntEnum):
    """How far a request has come."""

    READING = 1
    QUEUED = 2
    APPLICATION = 3
    WRITING = 4
    #: answered, and counted as such: what still runs is the iterable's ``close`` and Gunicorn's own hooks
    CLOSING = 5


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
    #: its place in the table, from 0
    region: int = field(default=-1, compare=False)

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


class RunningRequests:
    """The regions as their one writer, the worker, sees them; ``cells`` is the whole mapped file as int64.

    ``cells`` changes when the board moves into its file: look it up again after anything that may switch threads.
    """

    def __init__(self, memory: Any) -> None:
        self.cells = memoryview(memory).cast("B").cast("q")
        #: regions that nobody has, the lowest last: pop and append are atomic, so threads need no lock
        self.free = list(_ALL)

    def clear(self) -> None:
        """Free every region."""
        for region in range(FIRST, LAST, STEP):
            self.cells[region + START] = 0
        self.free[:] = _ALL

    def look_at(self, memory: Any) -> None:
        """Look at other memory from now on, and leave it as it is."""
        self.cells = memoryview(memory).cast("B").cast("q")

    def move(self, memory: Any) -> None:
        """Go on in other memory; what is written down now goes along, and what threads still write meanwhile."""
        source, target = self.cells, memoryview(memory).cast("B").cast("q")
        copied = memoryview(bytes(source[FIRST:LAST])).cast("q")
        target[FIRST:LAST] = copied
        self.cells = target
        for cell, before in enumerate(copied, FIRST):
            late = source[cell]
            if late == before:
                continue
            if cell % STEP == BUSY:
                late -= before
                target[cell] += late
            elif target[cell] == before:
                target[cell] = late

    def take(self, start: int, phase: int) -> int:
        """Write down that somebody is reading or queued; return the region, ``NOWHERE`` when all are taken."""
        try:
            region = self.free.pop()
        except IndexError:
            return NOWHERE
        cells = self.cells
        cells[region + PHASE] = phase
        cells[region + START] = start
        return region

    def leave(self, region: int) -> None:
        """Free a region."""
        if region >= 0:
            self.cells[region + START] = 0
            self.free.append(region)


def busy_cells(data: bytes | bytearray | memoryview) -> list[int]:
    """Return the busy cells of all regions in the content of a lock file; none of content that is too short."""
    if len(data) < END:
        return []
    return memoryview(data)[:END].cast("B").cast("q")[FIRST + BUSY :: STEP].tolist()


def read_running(data: bytes | bytearray | memoryview) -> Iterator[RunningRequest]:
    """Yield the requests written down in the content of a lock file; what cannot be right is left out."""
    whole = memoryview(data)[: len(data) - len(data) % 8].cast("B")
    cells = whole.cast("q")
    for number, region in enumerate(range(FIRST, min(LAST, len(cells) - STEP + 1), STEP)):
        start, phase = cells[region + START], cells[region + PHASE]
        if start <= 0 or not Phase.READING <= phase <= Phase.CLOSING:
            continue
        if phase <= Phase.QUEUED:
            # nothing is known of it yet: what stands there is the last request's
            yield RunningRequest(start, Phase(phase), region=number)
            continue
        text = bytes(whole[region * 8 : region * 8 + TEXT_SIZE]).rstrip(b"\0").decode("utf-8", "replace")
        method, route, client, request_id, path = map(harmless, (*text.split("\0", 4), "", "", "", "", "")[:5])
        yield RunningRequest(start, Phase(phase), method, route, client, request_id, path, number)


def read_unanswered(data: bytes | bytearray | memoryview) -> Iterator[RunningRequest]:
    """Yield the requests that were running and had not been answered; one that had not come to the application yet has
    no texts, and begins at 0 where nothing says when.
    """
    described = {request.region: request for request in read_running(data)}
    for number, busy in enumerate(busy_cells(data)):
        if busy < 0:
            request = described.get(number) or RunningRequest(0, Phase.READING)
            if request.phase != Phase.CLOSING:
                yield request


def harmless(text: str) -> str:
    """Return ``text`` with everything that is not printable (control characters, line breaks, bidirectional marks) as
    ``?``.
    """
    return "".join(character if character.isprintable() else "?" for character in text)
