"""The running instances, as a table or as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from promgun.status.texts import duration
from promgun.terminal.output import Output

if TYPE_CHECKING:
    from promgun.instances.entries import Run

FORMATS = ("table", "json")
_COLUMNS = ("NAME", "PID", "APPLICATION", "WORKER TYPE", "ADDRESSES", "METRICS", "UPTIME")


def render_runs(
    runs: Iterable[Run], form: str = "table", output: Output | None = None, now: float | None = None
) -> str:
    """Return the instances in ``form``, their uptime as of ``now`` (Unix seconds).

    JSON is a list of objects: the fields of ``Run``, and ``uptime_seconds``.
    """
    now = time.time() if now is None else now
    if form == "json":
        page = [asdict(run) | {"store": str(run.store), "uptime_seconds": round(run.uptime(now), 3)} for run in runs]
        return json.dumps(page, indent=2, ensure_ascii=False) + "\n"
    from promgun.terminal.tables import draw_records  # noqa: PLC0415 - rich is for tables only

    return draw_records(_COLUMNS, (_row(run, now) for run in runs), output)


def _row(run: Run, now: float) -> tuple[str, ...]:
    addresses, metrics = ", ".join(run.addresses), ", ".join(run.metrics_addresses) or "none"
    uptime = duration(run.uptime(now))
    return (run.name, str(run.pid), run.application, run.worker_type, addresses, metrics, uptime)
