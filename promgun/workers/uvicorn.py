"""``--worker-type uvicorn``: uvicorn's worker for Gunicorn (the package uvicorn-worker), measured.

A class of somebody else's that is derived from it, or uvicorn's own ``uvicorn.workers.UvicornWorker``, is measured by
:class:`UvicornMixin`. The seams are those of uvicorn 0.54 and uvicorn-worker 0.4, see ``_uvicorn_cycles``.
"""

from __future__ import annotations

import logging
from typing import Any

from uvicorn_worker import UvicornWorker

from promgun.store.board import Cell
from promgun.workers._asgi_lifecycle import EventLoopLifecycle, HideOwnFrames, log_failed_startup
from promgun.workers._config_cache import wants_shortcuts
from promgun.workers._heartbeat_marks import marking
from promgun.workers._loop_lag import LoopLag
from promgun.workers._uvicorn_cycles import follow_protocols
from promgun.workers._uvicorn_ticks import follow_ticks

_SERVED = int(Cell.SERVED)
#: uvicorn compares the seconds since the last heartbeat with this, once a second (0.54 ``Server.on_tick``). The
#: uvicorn-worker's half of ``--timeout`` would not tell a master whether the loop is blocked now.
_NOTIFY_AFTER = 0.5


def _explained(named: Any, log: Any) -> Any:
    """Return a class of uvicorn's lifespans that says in one line why the application did not start."""
    if not hasattr(named, "send"):
        # That of ``lifespan="off"``
        return named

    class ExplainedLifespan(named):  # type: ignore[misc] # a class that is chosen at run time
        """The application's lifespan."""

        async def send(self, message: Any) -> None:
            """Take a message of the application's."""
            await super().send(message)
            if message["type"] == "lifespan.startup.failed":
                log_failed_startup(log, message.get("message", ""))

    return ExplainedLifespan


class UvicornMixin(EventLoopLifecycle):
    """Goes before a class that runs a ``uvicorn.Server`` with ``self.config``."""

    config: Any
    tmp: Any

    def init_process(self) -> None:
        """Boot as the class does, with measured protocols in its configuration."""
        self._next_load = self.config.load
        self.config.load = self._load_config
        self.config.timeout_notify = min(self.config.timeout_notify, _NOTIFY_AFTER)
        follow_ticks()
        super().init_process()

    def prepare(self) -> None:
        """Get ready to follow requests."""
        super().prepare()
        self.loop_lag = LoopLag(self._board)
        # Its loop has a step every tenth of a second, whether or not a request runs.
        mark, next_notify = marking(self.tmp), self._next_notify

        def notify_and_mark() -> None:
            next_notify()
            mark()

        self._next_notify = notify_and_mark
        logging.getLogger("uvicorn.error").addFilter(HideOwnFrames())

    @property
    def takes_shortcuts(self) -> bool:
        """Whether uvicorn is saved the work that it does anew for each request."""
        return wants_shortcuts(self.cfg)

    def _load_config(self) -> None:
        """Load uvicorn's configuration, which chooses the protocol, then measure it."""
        self._next_load()
        follow_protocols(self.config, self)
        self.config.lifespan_class = _explained(self.config.lifespan_class, self.log)

    def capacity(self) -> int:
        """Return uvicorn's ``limit_concurrency``, 0 without one: it does not heed ``--worker-connections``."""
        return int(self.config.limit_concurrency or 0)

    def heartbeat_period(self) -> float:
        """Return 1 second: ten ticks, see :data:`_NOTIFY_AFTER`."""
        return 1.0

    def requests_served(self) -> int:
        """Return how many requests were counted; uvicorn does not use Gunicorn's ``nr``."""
        return self._served

    _served = 0

    def count_served(self) -> None:
        """Show at once that a request less is left until the worker is replaced."""
        self._served += 1
        self._board.cells[_SERVED] = self._served


class PrometheusUvicornWorker(UvicornMixin, UvicornWorker):  # type: ignore[misc] # gunicorn is untyped
    """uvicorn's worker, measured."""
