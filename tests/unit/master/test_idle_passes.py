"""What an idle master does in a pass of its main loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from promgun.master.idle_passes import IdlePasses
from promgun.master.succession import Succession
from promgun.store.board import Cell, Role
from promgun.store.process import ProcessStore
from tests.support.store_fixtures import opened


class Loop:
    """What Gunicorn does in a pass."""

    def __init__(self, store: ProcessStore) -> None:
        self.store, self.context = store, SimpleNamespace(succession=Succession())
        self.metrics_process: Any = SimpleNamespace(pid=1)
        self.reexec_pid, self.num_workers = 0, 2
        self.managed, self.signals = 0, list[int]()

    def wait_for_signals(self, timeout: float) -> list[int]:
        """Return the signals that the test has sent."""
        assert timeout == 1.0
        received, self.signals = self.signals, []
        return received

    def manage_workers(self) -> None:
        """Count the pass."""
        self.managed += 1


class Master(IdlePasses, Loop):
    """A main loop that counts what it does."""

    tended = 0

    def tend(self) -> None:
        """Count what is done besides Gunicorn's part."""
        self.tended += 1

    def passes(self, number: int) -> int:
        """Return in how many of so many passes everything was done."""
        before = self.tended
        for _ in range(number):
            self.wait_for_signals()
            self.manage_workers()
        return self.tended - before


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    """Return a master whose last pass had a signal."""
    with opened(tmp_path, Role.MASTER) as place:
        place.store.own_slot(Role.MASTER)
        loop = Master(place.store)
        loop.signals = [1]
        assert loop.passes(1) == 1
        yield loop


def test_an_idle_master_does_gunicorns_part_each_second_and_its_own_every_fifth(master: Master) -> None:
    assert master.passes(50) == 10
    assert master.managed == 51


def test_a_signal_and_another_number_of_workers_are_seen_to_at_once(master: Master) -> None:
    assert master.passes(2) == 0
    master.signals = [17]
    assert master.passes(1) == 1
    assert master.passes(1) == 0
    master.num_workers = 3
    assert master.passes(1) == 1
    assert master.store.board.cells[Cell.TARGET] == 3
    assert master.passes(1) == 0


def test_whatever_is_under_way_is_seen_to_in_each_pass(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    assert master.passes(3) == 0
    with monkeypatch.context() as patch:
        patch.setattr(master, "reexec_pid", 9)
        assert master.passes(3) == 3
        patch.setattr(master, "reexec_pid", 0)
        patch.setattr(master.metrics_process, "pid", 0)
        assert master.passes(3) == 3
        patch.setattr(master, "metrics_process", None)
        assert master.passes(3) == 1
        patch.setattr(master, "store", ProcessStore())
        assert master.passes(3) == 3
    assert master.passes(5) == 1
