"""When a worker of an event loop has nothing to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from promgun.store.board import Board
from promgun.store.request_table import RunningRequests
from promgun.workers._asgi_lifecycle import EventLoopLifecycle


class Worker(EventLoopLifecycle):
    """A worker that has served three requests."""

    def __init__(self) -> None:
        self.running = RunningRequests(Board().cells)
        self.accounting: Any = SimpleNamespace(running=self.running)

    def requests_served(self) -> int:
        """Return how many."""
        return 3


def test_its_work_is_what_it_served_and_not_known_while_a_request_runs() -> None:
    worker = Worker()
    assert worker.work_begun() == 3
    region = worker.running.free.pop()
    assert worker.work_begun() is None
    worker.running.free.append(region)
    assert worker.work_begun() == 3
