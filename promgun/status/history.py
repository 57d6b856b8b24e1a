"""The last minute of an instance, and the workers that ended since somebody has been watching it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from promgun.status.interval import Interval
from promgun.status.snapshot import Snapshot

MINUTE = 60.0
MOST_EVENTS = 50
#: Decimals of rates, shares and seconds in the JSON; a point is rounded once, when it is made.
DIGITS = 6
#: No more points than five a second leave in a minute.
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Point:
    """The head figures of one interval that ended ``at`` (Unix time) after ``seconds``; ``None`` is not known.

    Points are told apart by identity, which is what makes keeping their JSON cheap.

    ``workers`` (living ones), ``in_progress`` (requests), ``in_use`` (these and open websockets) and ``queue``
    (connections) are those of its end. Rates, shares and quantiles are rounded to ``DIGITS``.
    """

    at: float
    seconds: float
    workers: int
    in_progress: int
    in_use: int
    queue: int | None
    requests_per_second: float
    error_share: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    longest: float | None
    utilisation: float | None


@dataclass(frozen=True, slots=True)
class ExitEvent:
    """So many workers were seen to have ended by this cause, ``at`` (Unix time)."""

    at: float
    cause: str
    count: int


class History:
    """Built from the snapshots of one instance, one after another, from the first on.

    Start a new one when another instance takes its place. Used from one thread at a time.
    """

    def __init__(self, seconds: float = MINUTE) -> None:
        self.seconds = seconds
        self.since: float | None = None
        self.last: Snapshot | None = None
        self.interval: Interval | None = None
        self._points: deque[Point] = deque(maxlen=_MOST_POINTS)
        self._events: deque[ExitEvent] = deque(maxlen=MOST_EVENTS)
        self._exits: dict[str, int] = {}

    def add(self, snapshot: Snapshot) -> Interval | None:
        """Add a snapshot; return what happened since the one before.

        ``None`` for the first, and for one of the same moment, which changes nothing.
        """
        earlier = self.last
        if earlier is None:
            self.since, self.last = snapshot.at, snapshot
            return None
        # A slot that is missing for a while continues with its earlier totals instead of beginning at 0.
        snapshot = replace(snapshot, slots={**earlier.slots, **snapshot.slots})
        interval = Interval.between(earlier, snapshot)
        if interval is None:
            return None
        self.last, self.interval = snapshot, interval
        for cause, count in interval.exits.items():
            self._exits[cause] = self._exits.get(cause, 0) + count
            self._events.append(ExitEvent(snapshot.at, cause, count))
        self._points.append(_point(snapshot, interval))
        while self._points[0].at <= snapshot.at - self.seconds:
            self._points.popleft()
        return interval

    @property
    def points(self) -> tuple[Point, ...]:
        """The intervals that ended within the last ``seconds``, oldest first."""
        return tuple(self._points)

    @property
    def events(self) -> tuple[ExitEvent, ...]:
        """The last exits of workers, newest first."""
        return tuple(reversed(self._events))

    @property
    def exits(self) -> Mapping[str, int]:
        """How many workers ended since the first snapshot, by cause, without causes that did not occur."""
        return dict(self._exits)


def _point(snapshot: Snapshot, interval: Interval) -> Point:
    return Point(
        at=snapshot.at,
        seconds=interval.seconds,
        workers=len(snapshot.workers),
        in_progress=snapshot.in_progress,
        in_use=snapshot.in_use,
        queue=snapshot.waiting,
        requests_per_second=round(interval.requests_per_second, DIGITS),
        error_share=_rounded(interval.error_share),
        p50=_rounded(interval.p50),
        p95=_rounded(interval.p95),
        p99=_rounded(interval.p99),
        longest=_rounded(interval.longest),
        utilisation=_rounded(interval.utilisation),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
