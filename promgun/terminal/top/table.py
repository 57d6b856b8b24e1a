"""The table of workers in the terminal view: one line for each, and one for all that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from promgun.metrics.late_label_values import WorkerState
from promgun.status import texts
from promgun.status.figures import in_use_text, request_text
from promgun.status.snapshot import Worker
from promgun.terminal.output import printable
from promgun.terminal.top.charts import Glyphs
from promgun.terminal.top.layout import Column, Laid, Line, join, lay, rest_line
from promgun.terminal.top.view import Row

STATE_ROLES: Mapping[str, str] = {
    WorkerState.IDLE: "quiet",
    WorkerState.BUSY: "good",
    WorkerState.BOOTING: "warn",
    WorkerState.DRAINING: "warn",
    WorkerState.HUNG: "bad",
}
_LEAST_REQUEST = 12


def _sum(read: Callable[[Row], float | None], rows: Sequence[Row]) -> float | None:
    values = [value for row in rows if (value := read(row)) is not None]
    return sum(values) if values else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _requests(row: Row) -> float | None:
    return row.interval.requests_per_second if row.interval else None


def _cpu(row: Row) -> float | None:
    return row.interval.cpu_share if row.interval else None


def _memory(row: Row) -> float | None:
    return row.worker.memory


def _in_use(rows: Sequence[Row]) -> str:
    return in_use_text(row.worker for row in rows)


def _lag(rows: Sequence[Row]) -> str:
    return texts.latency(_most(row.worker.loop_lag for row in rows))


def _states(rows: Sequence[Row]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.worker.state] = counts.get(row.worker.state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


COLUMNS: tuple[Column[Row], ...] = (
    Column("SLOT", 4, 0, lambda row: str(row.worker.worker_id)),
    Column("PID", 7, 4, lambda row: texts.count(row.worker.pid)),
    Column("STATE", 8, 0, lambda row: row.worker.state, right=False),
    Column("REQUEST", _LEAST_REQUEST, 0, lambda row: request_text(row.worker), _states, right=False, flexible=True),
    Column("AGE", 6, 2, lambda row: texts.age(row.age), lambda rows: texts.age(_most(row.age for row in rows))),
    Column("REQ/S", 6, 1, lambda row: texts.rate(_requests(row)), lambda rows: texts.rate(_sum(_requests, rows))),
    Column("IN USE", 7, 3, lambda row: _in_use([row]), _in_use),
    Column("LAG", 7, 5, lambda row: _lag([row]), _lag),
    Column("CPU", 5, 6, lambda row: texts.cpu(_cpu(row)), lambda rows: texts.cpu(_sum(_cpu, rows))),
    Column("MEM", 6, 7, lambda row: texts.memory(_memory(row)), lambda rows: texts.memory(_sum(_memory, rows))),
    Column("LEFT", 6, 8, lambda row: texts.count(row.worker.requests_left)),
)
#: Columns that are there only if some worker has what they show.
_OPTIONAL: Mapping[str, Callable[[Worker], float | None]] = {
    "LAG": lambda worker: worker.loop_lag,
    "LEFT": lambda worker: worker.requests_left,
}


def table(rows: Sequence[Row], width: int | None, height: int | None, glyphs: Glyphs) -> Iterator[Line]:
    """Yield the heading and the rows in at most ``height`` lines; ``None`` is as many lines, or cells, as needed.

    Rows that do not fit are summed up in the last line.
    """
    if height is not None and height < 2:  # noqa: PLR2004 - a heading without a row says nothing
        return
    fitting = len(rows) if height is None or len(rows) < height else height - 2
    shown, rest = rows[:fitting], rows[fitting:]
    columns = [column for column in COLUMNS if _is_shown(column, rows)]
    cells = [[printable(column.cell(row)) for column in columns] for row in shown]
    if rest:
        cells.append([column.total(rest) for column in columns])
    laid = lay(columns, cells, width)
    yield [(join([column.heading for column in columns], laid, glyphs), "heading")]
    for row, row_cells in zip(shown, cells, strict=False):
        yield _worker_line(row, row_cells, laid, glyphs)
    if rest:
        yield rest_line(f"{glyphs.cut} {len(rest)} more", cells[-1], laid, glyphs)


def _worker_line(row: Row, cells: Sequence[str], laid: Laid, glyphs: Glyphs) -> Line:
    """Return a worker's line, with its state in the colour of that state."""
    at = next(place for place, (_, column, _) in enumerate(laid) if column.heading == "STATE")
    role = STATE_ROLES.get(row.worker.state, "plain")
    return [
        (join(cells, laid[:at], glyphs) + " ", "plain"),
        (join(cells, laid[at : at + 1], glyphs), role),
        (" " + join(cells, laid[at + 1 :], glyphs), "quiet" if role == "quiet" else "plain"),
    ]


def _is_shown(column: Column[Row], rows: Sequence[Row]) -> bool:
    read = _OPTIONAL.get(column.heading)
    return read is None or any(read(row.worker) is not None for row in rows)
