"""What a status frame costs, by the number of workers: the part of the scrape benchmark that makes no page."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

from shared import Value

from promgun.collect.reading import InstanceReader
from promgun.status.from_store import snapshot_of
from promgun.status.history import History
from promgun.status.json import to_json

#: How many workers each of the stores has.
FRAME_WORKERS = (1, 8, 32, 64)
_POINTS = 60


class FrameCase:
    """A store of so many living workers, watched for a minute already, and the milliseconds that its frames took."""

    def __init__(self, workers: int, store: Path) -> None:
        self.workers = workers
        self._reader = InstanceReader(store)
        self.history = History()
        self.figures: dict[str, list[float]] = {}
        now = snapshot_of(self._reader.read(whole=False))
        if len(now.workers) != workers:
            raise SystemExit(f"{workers} workers were started, {len(now.workers)} are seen")
        for second in range(_POINTS + 1, 0, -1):
            self.history.add(replace(now, taken=now.taken - second, at=now.at - second))

    def measure(self) -> None:
        """Make one frame, and keep what each step took."""
        begin = time.process_time()
        snapshot = snapshot_of(self._reader.read(whole=False))
        read = time.process_time()
        self.history.add(snapshot)
        to_json(snapshot, self.history)
        end = time.process_time()
        for what, seconds in {"frame": end - begin, "snapshot": read - begin, "JSON": end - read}.items():
            self.figures.setdefault(what, []).append(seconds * 1e3)


def frame_rows(cases: list[FrameCase]) -> list[dict[str, Value]]:
    """Return a row for each store."""
    return [
        {"workers": case.workers}
        | {
            label: statistics.median(case.figures[what])
            for what, label in {"frame": "frame", "snapshot": "… snapshot", "JSON": "… JSON"}.items()
        }
        for case in cases
    ]
