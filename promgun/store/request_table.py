"""Running requests on the scoreboard: up to 64 a slot, each in a region of fixed size behind the board's cells.

A region is 256 bytes: text (method, client, request id and path in UTF-8, separated by NUL, cut to fit), then three
int64: phase, start (nanoseconds of ``CLOCK_MONOTONIC``, 0 when free) and busy. The phase is written after the text and
says whether there is any, so a reader, or a master after SIGKILL, never finds half a text. The cell of the phase has
the phase in its lowest 8 bits and above them the status whose head was sent, 0 while that is not known.

The route becomes known while the request runs. It is written over the end of the text, then its length in a byte, and
last the byte 0xFF, which UTF-8 does not have: nothing that a client sends can pass for a route, nor can half a route.

Busy is the total time of this region's requests; while one is running, the current clock has to be added to it. One
store to memory begins a request and one ends it, so a copy of the cell is right at any instant. It is negative exactly
while a request is running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import Any

from promgun.system.closed_set import ClosedSet, Member

OFFSET = 1024
REGIONS = 64
REGION_SIZE = 256
TEXT_SIZE = REGION_SIZE - 24
END = OFFSET + REGIONS * REGION_SIZE

#: The same sizes in cells; a region is identified by the index of its first cell.
FIRST = OFFSET // 8
STEP = REGION_SIZE // 8
LAST = END // 8
PHASE, START, BUSY = TEXT_SIZE // 8, TEXT_SIZE // 8 + 1, TEXT_SIZE // 8 + 2
_ALL = range(LAST - STEP, FIRST - STEP, -STEP)
#: The status in the cell of the phase; any number of three digits may be one.
STATUS_SHIFT = 8
_PHASE_BITS = (1 << STATUS_SHIFT) - 1
_HIGHEST_STATUS = 999
#: What is behind a route, and nowhere else.
ROUTE_MARK = 0xFF
#: A longer route, in bytes, is not shown while the request runs: the texts in front of it need room.
_LONGEST_ROUTE = 180
#: Routes that are remembered as they are written.
_REMEMBERED_ROUTES = 10_000
#: In place of a region, when all are taken.
NOWHERE = -1
#: The region of a request that has left its own: somebody else may have that by now.
OVER = -2

#: ``describe(cells, 8 * region, text, phase, start)`` writes a request's description, the text before the phase.
describe = Struct(f"={TEXT_SIZE}sqq").pack_into
_mark = Struct("B").pack_into
#: A copy of a slot file ends here if no region behind was ever used. The first free region is taken, so most
#: workers use few, and a page holds a copy of each board.
_FEW = 4
_END_OF_FEW = OFFSET + _FEW * REGION_SIZE
_UNUSED = bytes(END - _END_OF_FEW)
#: Start and busy cell of each region in turn, at one look.
_starts_and_busy = Struct("=" + f"{TEXT_SIZE + 8}xqq" * REGIONS).unpack_from
_starts_and_busy_of_few = Struct("=" + f"{TEXT_SIZE + 8}xqq" * _FEW).unpack_from


class Phase(int, metaclass=ClosedSet):
    """How far a request has come."""

    name: str
    READING = Member(1)
    QUEUED = Member(2)
    APPLICATION = Member(3)
    WRITING = Member(4)
    #: answered and counted; only the iterable's ``close`` and Gunicorn's own hooks still run
    CLOSING = Member(5)


_PHASES = {int(phase): phase for phase in Phase}


# No named tuple: making one takes ten times as long (CPython 3.11), and each start waits for it.
class RunningRequest:
    """A request that a worker is serving: ``start`` in nanoseconds of the monotonic clock; texts are safe to print.

    ``status`` is the one whose head was sent, 0 if none is known to have been; ``region`` is its place in the table,
    from 0.
    """

    __slots__ = ("client", "method", "path", "phase", "region", "request_id", "route", "start", "status")

    def __init__(
        self,
        start: int,
        phase: Phase,
        *,
        method: str = "",
        route: str = "",
        client: str = "",
        request_id: str = "",
        path: str = "",
        status: int = 0,
        region: int = -1,
    ) -> None:
        self.start = start
        self.phase = phase
        self.method = method
        self.route = route
        self.client = client
        self.request_id = request_id
        self.path = path
        self.status = status
        self.region = region

    def age(self, now_ns: int) -> float:
        """Return the seconds since the request began."""
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

    ``cells`` changes when the board moves into its file: read the attribute again whenever threads may have switched.
    """

    def __init__(self, memory: Any) -> None:
        self.cells = memoryview(memory).cast("B").cast("q")
        #: free regions, the lowest last: pop and append are atomic, so threads need no lock
        self.free = list(_ALL)
        #: how each route is written: the function, where it begins in a region, its bytes with their number behind them
        self.places: dict[str, tuple[Callable[..., None], int, bytes]] = {}

    @property
    def any_listed(self) -> bool:
        """Whether a region is occupied."""
        return len(self.free) < len(_ALL)

    def clear(self) -> None:
        """Free every region."""
        for region in range(FIRST, LAST, STEP):
            self.cells[region + START] = 0
        self.free[:] = _ALL

    def look_at(self, memory: Any) -> None:
        """Use other memory from now on, without changing its content."""
        self.cells = memoryview(memory).cast("B").cast("q")

    def move(self, memory: Any) -> None:
        """Use other memory from now on; running requests are copied to it, with what threads write meanwhile."""
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

    def show_route(self, region: int, route: str) -> None:
        """Write the route of a request, which has none there, behind its description."""
        write, start, data = self.places.get(route) or self.place_route(route)
        write(self.cells, region * 8 + start, data, ROUTE_MARK)

    def forget_route(self, region: int, route: str) -> None:
        """Remove the route of a request, which will be named anew: the mark first, so that no half of it is read."""
        write, start, _ = self.places.get(route) or self.place_route(route)
        _mark(self.cells, region * 8 + TEXT_SIZE - 1, 0)
        write(self.cells, region * 8 + start, b"", 0)

    def place_route(self, route: str) -> tuple[Callable[..., None], int, bytes]:
        """Find how to write a route after a request's description, and remember it in ``places``.

        ``write(cells, 8 * region + start, data, ROUTE_MARK)`` does it.
        """
        data = route.encode("utf-8", "replace")
        if len(data) > _LONGEST_ROUTE:
            data = b""
        if len(self.places) >= _REMEMBERED_ROUTES:
            self.places.clear()
        data += bytes([len(data)])
        # Struct writes its fields in their order: the mark last.
        place = self.places[route] = Struct(f"{len(data)}sB").pack_into, TEXT_SIZE - 1 - len(data), data
        return place


def without_unused(data: bytes) -> bytes:
    """Return a slot file's content without the regions at its end, if they were never used."""
    return data[:_END_OF_FEW] if data.startswith(_UNUSED, _END_OF_FEW) else data


def busy_cells(data: bytes | bytearray | memoryview) -> Sequence[int]:
    """Return the busy cells of the regions in a slot file's content; empty if the content is too short."""
    return _look_at(data)[1::2]


def _look_at(data: bytes | bytearray | memoryview) -> Sequence[int]:
    if len(data) == _END_OF_FEW:
        return _starts_and_busy_of_few(data, OFFSET)
    return _starts_and_busy(data, OFFSET) if len(data) >= END else ()


def sum_up(data: bytes | bytearray | memoryview) -> tuple[int, int, bool]:
    """Return the sum of all busy cells in a slot file's content, how many are those of running requests, and whether a
    region may have a request to read. Content that is too short has no busy cells.
    """
    starts_and_busy = _look_at(data)
    if not starts_and_busy:
        return 0, 0, True
    busy = starts_and_busy[1::2]
    # In most workers none is running, at most moments.
    running = sum(map((0).__gt__, busy)) if min(busy) < 0 else 0
    return sum(busy), running, max(starts_and_busy[::2]) > 0


def read_running(data: bytes | bytearray | memoryview) -> Iterator[RunningRequest]:
    """Yield the running requests in a slot file's content; invalid ones are left out."""
    whole = memoryview(data)[: len(data) - len(data) % 8].cast("B")
    cells = whole.cast("q")
    behind = min(LAST, len(cells) - STEP + 1)
    starts = cells[FIRST + START : behind + START : STEP].tolist() if behind > FIRST else []
    for number, start in enumerate(starts):
        if start <= 0:
            continue
        region = FIRST + number * STEP
        phase = cells[region + PHASE] & _PHASE_BITS
        status = cells[region + PHASE] >> STATUS_SHIFT
        if not Phase.READING <= phase <= Phase.CLOSING or not 0 <= status <= _HIGHEST_STATUS:
            continue
        if phase <= Phase.QUEUED:
            # nothing is known of it yet: the text is the last request's
            yield RunningRequest(start, _PHASES[phase], region=number)
            continue
        written = bytes(whole[region * 8 : region * 8 + TEXT_SIZE])
        route, behind_text = "", TEXT_SIZE
        if written[-1] == ROUTE_MARK:
            behind_text = max(0, TEXT_SIZE - 2 - written[-2])
            route = harmless(written[behind_text:-2].decode("utf-8", "replace"))
        text = written[:behind_text].rstrip(b"\0").decode("utf-8", "replace")
        method, client, request_id, path = map(harmless, (*text.split("\0", 3), "", "", "", "")[:4])
        yield RunningRequest(
            start,
            _PHASES[phase],
            method=method,
            route=route,
            client=client,
            request_id=request_id,
            path=path,
            status=status,
            region=number,
        )


def read_uncounted(data: bytes | bytearray | memoryview) -> Iterator[RunningRequest]:
    """Yield the requests that were running and not counted as answered. One that had not reached the application has no
    texts, and its start is 0 when unknown.
    """
    described = {request.region: request for request in read_running(data)}
    for number, busy in enumerate(busy_cells(data)):
        if busy < 0:
            request = described.get(number) or RunningRequest(0, Phase.READING)
            if request.phase != Phase.CLOSING:
                yield request


def harmless(text: str) -> str:
    """Return ``text`` with ``?`` for everything unprintable (control characters, line breaks, bidirectional marks)."""
    return "".join(character if character.isprintable() else "?" for character in text)
