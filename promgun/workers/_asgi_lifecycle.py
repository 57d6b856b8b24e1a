"""What the workers of event loops have in common: when they are ready, their heartbeat, their accounting, their end."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from promgun.metrics.families.requests import REQUEST_QUEUE_SECONDS
from promgun.metrics.label_values import QueueSource
from promgun.store.board import Cell, ExitHint
from promgun.workers._accounting import RequestAccounting
from promgun.workers._asgi_websockets import show_families
from promgun.workers._kind_doubt import KindDoubt
from promgun.workers._lifecycle import WorkerLifecycle
from promgun.workers._queue_time import ArrivalObserver, TrustedPeers
from promgun.workers._tracebacks import hide_own_frames

_SERVED = int(Cell.SERVED)


class HideOwnFrames(logging.Filter):
    """Removes promgun's frames from the tracebacks of a logger: the server, or the loop, logs at once what leaves the
    application, or the protocol.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        if record.exc_info and record.exc_info[1] is not None:
            hide_own_frames(record.exc_info[1])
        return True


def log_failed_startup(log: Any, message: str) -> None:
    """Log why an application's lifespan could not start: the last line of its message, which may be a traceback."""
    lines = message.split("Lifespan startup failed: ", 1)[-1].strip().splitlines() or ["it gave no reason"]
    log.error("The application's lifespan start-up failed: %s", lines[-1].strip())


class EventLoopLifecycle(WorkerLifecycle):
    """Goes before a worker class that serves on an event loop: most of its boot happens in ``run``."""

    #: What counts the requests; :class:`LoopAccounting` where only they tell that the loop is at work.
    new_accounting: Callable[..., RequestAccounting] = RequestAccounting

    has_loop = True
    _serving = False
    _in_run = False

    def prepare(self) -> None:
        """Get ready to follow requests."""
        super().prepare()
        self.is_replaced = self.max_requests != sys.maxsize
        self.accounting = self.new_accounting(self._board, self.instruments, TrustedPeers(self.cfg), routes=self.routes)
        self.accounting.kind_doubt = KindDoubt(self, calls_asgi=True).look
        self.observe_arrival = ArrivalObserver(
            self.instruments.histograms.observer(REQUEST_QUEUE_SECONDS, (QueueSource.KERNEL,))
        )
        os.register_at_fork(after_in_child=self.accounting.forget_parent)
        error_log = getattr(self.log, "error_log", None)
        if isinstance(error_log, logging.Logger):
            error_log.addFilter(HideOwnFrames())
        logging.getLogger("asyncio").addFilter(HideOwnFrames())

    def heartbeat_period(self) -> float:
        """Return the longest time in seconds between two heartbeats of an idle worker of this class."""
        raise NotImplementedError

    def requests_served(self) -> int:
        """Return how many requests count against ``--max-requests``."""
        raise NotImplementedError

    def work_begun(self) -> int | None:
        """Return how many requests were served, ``None`` while one runs or a websocket is open."""
        return None if self.accounting.running.any_listed else self.requests_served()

    def hung_after(self) -> float:
        """Return the middle between the class's longest period and the timeout, in seconds; 0 without a timeout."""
        timeout = float(self.cfg.timeout)
        return (min(self.heartbeat_period(), timeout) + timeout) / 2

    def enter_service(self) -> None:
        """Wait for the first heartbeat: it is sent when the application's lifespan has started and the sockets are
        served.
        """
        self._in_run = True

    def notify(self) -> None:
        """Send the heartbeat; from the first one on the worker is serving."""
        super().notify()
        if self._serving:
            self._board.cells[_SERVED] = self.requests_served()
        elif self._in_run:
            self._serving = True
            show_families(self.accounting)
            super().enter_service()

    def note_exit(self) -> None:
        """Write to the board why the worker ends by itself."""
        super().note_exit()
        cells: Any = self._board.cells
        if not cells[Cell.EXIT_HINT] and self._serving and self.cfg.max_requests and not self.cfg.reload:
            # The limit is polled, and what was served since is not in any counter yet.
            cells[Cell.EXIT_HINT] = ExitHint.MAX_REQUESTS
