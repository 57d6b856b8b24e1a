"""A snapshot from the metric families of one page, collected here or served by another host."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from promgun.status.snapshot import Details, Queue, SlotTotals, Snapshot, Worker

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.samples import Sample

REQUESTS = "gunicorn_requests_total"
DURATIONS = "gunicorn_request_duration_seconds_bucket"
WORKER_REQUESTS = "gunicorn_worker_requests_total"
EXITS = "gunicorn_worker_exits_total"
#: What a snapshot reads of a page, by the names of the families: all that needs to be asked for (``?name[]=``).
FAMILIES = frozenset(
    {
        "gunicorn_info",
        "gunicorn_listener_queue_connections",
        "gunicorn_listener_queue_limit",
        "gunicorn_master_uptime_seconds",
        "gunicorn_request_duration_seconds",
        "gunicorn_requests",
        "gunicorn_up",
        "gunicorn_worker_busy_seconds",
        "gunicorn_worker_capacity",
        "gunicorn_worker_cpu_seconds",
        "gunicorn_worker_exits",
        "gunicorn_worker_heartbeat_age_seconds",
        "gunicorn_worker_oldest_request_seconds",
        "gunicorn_worker_requests",
        "gunicorn_worker_requests_in_progress",
        "gunicorn_worker_requests_left",
        "gunicorn_worker_resident_memory_bytes",
        "gunicorn_worker_state",
        "gunicorn_worker_uptime_seconds",
        "gunicorn_workers",
    }
)
_MOST_DIGITS = 6
_BOUND = re.compile(r"\+Inf|[0-9]+(\.[0-9]+)?(e[+-]?[0-9]{1,2})?", re.ASCII)


def snapshot_of(families: Iterable[Metric], *, taken: float, at: float, details: Details | None = None) -> Snapshot:
    """Read a page that was collected at ``taken`` (the observer's monotonic clock) and ``at`` (Unix time).

    Never raises: what is missing, unknown or not a number is left out.
    """
    page = _Page(families)
    details = details or Details()
    return Snapshot(
        taken=taken,
        at=at,
        up=bool(page.value("gunicorn_up")),
        uptime=page.value("gunicorn_master_uptime_seconds"),
        info=page.labels("gunicorn_info"),
        target=int(page.by("gunicorn_workers", "state").get("target", 0)),
        workers=_workers(page, details),
        slots=_slots(page),
        requests=page.by(REQUESTS, "status"),
        durations=_durations(page),
        queues=_queues(page),
        exits={cause: int(count) for cause, count in page.by(EXITS, "cause").items()},
        details=details,
    )


class _Page:
    """The samples of a page by name, without those whose value is NaN or infinite."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for family in families:
            if family.name in FAMILIES:
                for sample in family.samples:
                    if math.isfinite(sample.value):
                        self._samples.setdefault(sample.name, []).append(sample)

    def value(self, name: str) -> float | None:
        """Return the value of a sample without labels."""
        return next((sample.value for sample in self._samples.get(name, ())), None)

    def labels(self, name: str) -> dict[str, str]:
        """Return the labels of the first sample."""
        return next((dict(sample.labels) for sample in self._samples.get(name, ())), {})

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the sums of the samples by the value of one label."""
        sums: dict[str, float] = {}
        for sample in self._samples.get(name, ()):
            value = sample.labels.get(label, "")
            sums[value] = sums.get(value, 0.0) + sample.value
        return sums

    def by_slot(self, name: str) -> dict[int, float]:
        """Return the sums of a worker's family by slot."""
        sums = self.by(f"gunicorn_worker_{name}", "worker_id")
        return {int(text): value for text, value in sums.items() if _is_slot(text)}

    def states(self) -> Iterator[tuple[int, str]]:
        """Yield the slots that have a living worker, and its state."""
        for sample in self._samples.get("gunicorn_worker_state", ()):
            text = sample.labels.get("worker_id", "")
            if sample.value == 1 and _is_slot(text):
                yield int(text), sample.labels.get("state", "")


def _is_slot(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def _workers(page: _Page, details: Details) -> dict[int, Worker]:
    gauges = {
        name: page.by_slot(name)
        for name in (
            "requests_in_progress",
            "capacity",
            "oldest_request_seconds",
            "heartbeat_age_seconds",
            "uptime_seconds",
            "resident_memory_bytes",
            "requests_left",
        )
    }
    workers = {}
    for slot, state in sorted(page.states()):
        values = {name: found.get(slot) for name, found in gauges.items()}
        workers[slot] = Worker(
            worker_id=slot,
            state=state,
            pid=details.pids.get(slot),
            in_progress=int(values["requests_in_progress"] or 0),
            capacity=int(values["capacity"] or 0),
            oldest_request=values["oldest_request_seconds"] or 0.0,
            heartbeat_age=values["heartbeat_age_seconds"] or 0.0,
            uptime=values["uptime_seconds"] or 0.0,
            memory=_whole(values["resident_memory_bytes"]),
            requests_left=_whole(values["requests_left"]),
            running=details.running.get(slot, ()),
        )
    return workers


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _slots(page: _Page) -> dict[int, SlotTotals]:
    requests, busy, cpu = (page.by_slot(name) for name in ("requests_total", "busy_seconds_total", "cpu_seconds_total"))
    return {
        slot: SlotTotals(requests.get(slot, 0.0), busy.get(slot, 0.0), cpu.get(slot, 0.0))
        for slot in sorted({*requests, *busy, *cpu})
    }


def _durations(page: _Page) -> dict[float, float]:
    """Return the cumulative buckets of all requests by bound; a bound that is not a number is left out."""
    found = {text: count for text, count in page.by(DURATIONS, "le").items() if _BOUND.fullmatch(text)}
    return dict(sorted((float(text), count) for text, count in found.items()))


def _queues(page: _Page) -> tuple[Queue, ...]:
    limits = page.by("gunicorn_listener_queue_limit", "listener")
    waiting = page.by("gunicorn_listener_queue_connections", "listener")
    return tuple(Queue(name, int(count), int(limits.get(name, 0))) for name, count in sorted(waiting.items()))
