"""``promgun ps --requests``: the table, the JSON, and what stands on scoreboards."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.cli.main import main
from promgun.instances.entries import Run
from promgun.instances.registry import register
from promgun.status.requests import WorkerNow, workers_now
from promgun.status.snapshot import OpenRequest
from promgun.store.board import Cell, Role
from promgun.store.process import ProcessStore
from promgun.store.request_table import REGIONS
from promgun.terminal.output import Output
from promgun.terminal.requests import render_requests
from tests.support.boards import begin
from tests.support.store_fixtures import opened

SLOW = OpenRequest(
    phase="application", age=2.04, method="GET", route="/slow/<int:n>", path="/slow/5", client="10.0.0.1"
)


def worker(*running: OpenRequest, in_progress: int | None = None, state: str = "busy") -> WorkerNow:
    count = len(running) if in_progress is None else in_progress
    return WorkerNow(instance="shop", worker_id=2, pid=4711, state=state, in_progress=count, running=running)


def test_table_has_a_row_for_each_request_and_for_each_idle_worker() -> None:
    text = render_requests([worker(SLOW, OpenRequest(phase="reading", age=0.1)), worker(state="idle")])
    assert [line.split() for line in text.splitlines()] == [
        ["INSTANCE", "SLOT", "PID", "STATE", "PHASE", "METHOD", "ROUTE", "PATH", "CLIENT", "AGE"],
        ["shop", "2", "4711", "busy", "application", "GET", "/slow/<int:n>", "/slow/5", "10.0.0.1", "2.0s"],
        ["shop", "2", "4711", "busy", "reading", "0.1s"],
        ["shop", "2", "4711", "idle"],
    ]


def test_requests_beyond_the_board_are_counted() -> None:
    assert "(3 more)" in render_requests([worker(SLOW, in_progress=4)]).splitlines()[-1]


def test_path_and_route_cannot_drive_the_terminal() -> None:
    text = render_requests(
        [worker(OpenRequest(phase="application", age=0, route="/\x1b[3J", path="/\x1b[2J[bold]x"))], "table", Output()
    )
    assert "\x1b" not in text
    assert "[bold]x" in text


def test_json_names_everything() -> None:
    read = json.loads(render_requests([worker(SLOW), worker(state="idle")], "json"))
    assert read[0] == {
        "instance": "shop",
        "worker_id": 2,
        "pid": 4711,
        "state": "busy",
        "requests_in_progress": 1,
        "phase": "application",
        "method": "GET",
        "route": "/slow/<int:n>",
        "path": "/slow/5",
        "client": "10.0.0.1",
        "age_seconds": 2.04,
    }
    assert {read[1][name] for name in ("phase", "method", "route", "path", "client", "age_seconds")} == {None}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Run, ProcessStore]]:
    """An instance with one worker: both are this process."""
    monkeypatch.setenv("PROMGUN_RUNTIME_DIR", str(tmp_path / "run"))
    store = tmp_path / "store"
    entry = Run(
        name="shop",
        pid=os.getpid(),
        started=time.time(),
        application="shop:app",
        worker_type="sync",
        addresses=(),
        metrics_addresses=(),
        store=store,
    )
    with opened(store, Role.WORKER) as worker_:
        worker_.store.own_slot()
        worker_.store.board.cells[Cell.BOOTED] = time.monotonic_ns()
        register(entry)
        yield entry, worker_.store


def test_scoreboard_is_read_at_any_moment(run: tuple[Run, ProcessStore]) -> None:
    entry, store = run
    start = time.monotonic_ns()
    for number in range(REGIONS + 2):
        begin(store.board, start, f"GET\0\x0010.0.0.1\0\0/{number}?secret")
    # as if the worker were killed in the middle of a change
    store.board.cells[Cell.WRITES_BEGUN] += 1
    (seen,) = workers_now([entry])
    assert seen.in_progress == REGIONS + 2
    assert {request.path for request in seen.running} == {f"/{number}" for number in range(REGIONS)}
    assert "(2 more)" in render_requests([seen])


def invoke(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["ps", "--requests", *args])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.usefixtures("run")
def test_command_shows_the_instances(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke() == 0
    assert capsys.readouterr().out.split()[-4:] == ["shop", "1", str(os.getpid()), "idle"]
    assert invoke("--format", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "idle"


def test_command_without_instances_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROMGUN_RUNTIME_DIR", str(tmp_path))
    assert invoke("--format", "json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == []
    assert told.err == "no running instances\n"


def test_dead_worker_is_not_shown(run: tuple[Run, ProcessStore]) -> None:
    entry, store = run
    store.board.cells[Cell.PROCESS_START] -= 1
    assert list(workers_now([entry])) == []
