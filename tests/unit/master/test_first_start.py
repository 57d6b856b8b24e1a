"""When the first metrics process starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from promgun.master.first_start import FirstStart
from promgun.store.board import Cell
from tests.support.store_fixtures import Clock, open_directory, worker

#: What Gunicorn has of a worker in slot 1.
WORKER: Any = SimpleNamespace(slot=SimpleNamespace(number=1))


def test_it_waits_for_a_worker_that_has_booted(tmp_path: Path) -> None:
    first, directory = FirstStart(Clock()), open_directory(tmp_path)
    assert first.pause(1.0) == 1.0
    assert not first.is_due(directory, [WORKER])
    assert first.pause(1.0) < 0.1
    with worker(tmp_path) as slot:
        assert not first.is_due(directory, [WORKER])
        slot.store.board.cells[Cell.BOOTED] = 1
        assert first.is_due(directory, [WORKER])
    assert first.pause(1.0) == 1.0
    assert first.is_due(directory, [WORKER])


def test_it_does_not_wait_for_ever(tmp_path: Path) -> None:
    clock, directory = Clock(), open_directory(tmp_path)
    first = FirstStart(clock)
    assert not first.is_due(directory, [WORKER])
    clock.pass_time(0.6)
    assert first.is_due(directory, [WORKER])


def test_it_does_not_wait_where_no_worker_is_expected(tmp_path: Path) -> None:
    assert FirstStart(Clock()).is_due(open_directory(tmp_path), [])
