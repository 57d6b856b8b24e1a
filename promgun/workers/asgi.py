"""``--worker-type asgi``: Gunicorn's own ASGI worker, measured; ``_asgi_protocol`` follows its requests."""

from __future__ import annotations

from typing import Any

import gunicorn
from gunicorn import version_info
from gunicorn.asgi import lifespan, websocket
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi
from gunicorn.workers.gasgi import ASGIWorker

from promgun.store.board import Cell, ExitHint
from promgun.store.process import STORE
from promgun.workers._asgi_heads import remember_lines
from promgun.workers._asgi_lifecycle import EventLoopLifecycle, log_failed_startup
from promgun.workers._asgi_protocol import MeasuredProtocol
from promgun.workers._asgi_shortcuts import QuickProtocol, is_known
from promgun.workers._asgi_websockets import MeasuredWebSocket
from promgun.workers._config_cache import cache_settings, wants_shortcuts
from promgun.workers._heartbeat_marks import marking
from promgun.workers._loop_lag import LoopAccounting, LoopLag, beating, loop_timer

_SERVED = int(Cell.SERVED)
FLOOR = (27, 0, 1)
OLD_SERVER = (
    "The ASGI worker of Gunicorn %s serves after a failed start-up, leaves a refused websocket without an answer, and "
    "holds a connection while a background task runs (27.0.1 does not); requests are counted as they are answered"
)


#: What an application raises that says itself that it cannot start; since gunicorn 27.0.0.
_STARTUP_FAILED: Any = getattr(lifespan, "LifespanStartupFailed", ())


class MeasuredLifespan(lifespan.LifespanManager):  # type: ignore[misc] # gunicorn is untyped
    """The application's lifespan: says in one line why it did not start, and when the server serves without waiting for
    it any longer.
    """

    async def startup(self) -> None:
        """Start the application."""
        try:
            await super().startup()
        except RuntimeError as error:
            if isinstance(error, _STARTUP_FAILED):
                log_failed_startup(self.logger, str(error))
            elif "timed out" in str(error):
                self.logger.warning("The application's lifespan start-up took too long: the worker serves without it")
            raise


class QuickMeasuredProtocol(QuickProtocol, MeasuredProtocol):
    """A connection that is measured, and costs the server less."""


class AsgiMixin(EventLoopLifecycle):
    """Goes before Gunicorn's ASGI worker, or a class that is derived from it."""

    asgi: Any
    tmp: Any
    new_accounting = LoopAccounting

    #: set when the worker cuts off what still runs
    cuts_off = False

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn of a version of Gunicorn whose server has known faults; Gunicorn calls this once, in the master."""
        super().check_config(cfg, log)  # type: ignore[misc] # same
        if version_info < FLOOR:
            log.warning(OLD_SERVER, gunicorn.__version__)

    def init_process(self) -> None:
        """Boot as Gunicorn's class does, with our classes where it looks for its own."""
        gasgi.ASGIProtocol = MeasuredProtocol
        lifespan.LifespanManager = MeasuredLifespan
        websocket.WebSocketProtocol = MeasuredWebSocket
        super().init_process()

    def prepare(self) -> None:
        """Get ready to follow requests, and to measure the loop."""
        super().prepare()
        accounting: Any = self.accounting
        self._lag = accounting.lag = LoopLag(self._board, accounting.runs, loop_timer, mark=marking(self.tmp))
        self._next_notify = beating(self._next_notify, self._lag)

    def enter_service(self) -> None:
        """Save Gunicorn work, then wait for the first heartbeat."""
        cache_settings(self.cfg)
        if wants_shortcuts(self.cfg):
            self.take_shortcuts()
        super().enter_service()

    def take_shortcuts(self) -> None:
        """Save Gunicorn the work that it does anew for each connection and request, from now on."""
        if is_known(ASGIProtocol):
            QuickMeasuredProtocol.answer_lines = remember_lines()
            gasgi.ASGIProtocol = QuickMeasuredProtocol

    def capacity(self) -> int:
        """Return how many connections the worker may have."""
        return int(self.cfg.worker_connections)

    def heartbeat_period(self) -> float:
        """Return 1 second (gunicorn 25.3 to 27.0 ``ASGIWorker._serve``)."""
        return 1.0

    def requests_served(self) -> int:
        """Return Gunicorn's own count of requests."""
        return int(self.nr)

    def count_served(self) -> None:
        """Show at once that a request less is left until the worker is replaced."""
        self._board.cells[_SERVED] = self.nr + 1

    def handle_exit_signal(self) -> None:
        """Begin to drain."""
        cells = self._board.cells
        cells[Cell.EXIT_HINT] = ExitHint.SIGNALLED
        cells[Cell.DRAINING] = 1
        super().handle_exit_signal()  # type: ignore[misc] # the next class in the MRO

    def handle_quit_signal(self) -> None:
        """Quit."""
        self._board.cells[Cell.EXIT_HINT] = ExitHint.SIGNALLED
        STORE.worker_quits = True
        super().handle_quit_signal()  # type: ignore[misc] # same

    def handle_abort_signal(self) -> None:
        """Note that the worker timed out; a loop that is blocked never comes here."""
        self._board.cells[Cell.EXIT_HINT] = ExitHint.ABORTED
        STORE.worker_quits = True
        if self.standalone is None and self.cfg.stack_dump_at:
            self._stacks.finish()
        super().handle_abort_signal()  # type: ignore[misc] # same

    def _cleanup(self) -> None:
        self._lag.last_beat()
        self.cuts_off = self.standalone is None
        super()._cleanup()  # type: ignore[misc] # same


class PrometheusASGIWorker(AsgiMixin, ASGIWorker):  # type: ignore[misc] # gunicorn is untyped
    """Gunicorn's ASGI worker, measured."""
