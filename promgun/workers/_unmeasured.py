"""Worker classes whose applications are not WSGI: they serve as under plain Gunicorn, without measured requests.

Such classes are recognised by their structure, not by name. Gunicorn's own WSGI servers (``sync``, ``gthread``, and
subclasses of ``AsyncWorker``) and classes built on them call the application by WSGI. Any other class with a coroutine
function among its methods serves on an event loop, where a WSGI callable cannot run: ``gunicorn.workers.gasgi``,
uvicorn-worker, aiohttp. A class that this rule takes for the wrong kind is measured too little but still works: any
other class is measured only around an application that can be called with ``(environ, start_response)``, see
``_wsgi_fallback``.
"""

from __future__ import annotations

import inspect
from typing import Any

from gunicorn.workers.base import Worker

from promgun.store.board import Cell, ExitHint
from promgun.workers._lifecycle import WorkerLifecycle
from promgun.workers._server_kinds import is_async, is_sync, is_threaded

_UVICORN = frozenset({"uvicorn_worker._workers.UvicornWorker", "uvicorn.workers.UvicornWorker"})
WARNING = (
    "%s serves applications that are not WSGI: it runs as under plain Gunicorn, and its requests are not measured. "
    "Missing are all metrics of requests (counts, durations, sizes, errors, queue times), requests in "
    "progress, busy time and capacity. Metrics of the master, of workers and their exits are there"
)


def serves_wsgi(worker_class: type) -> bool:
    """Whether a worker class calls its application by WSGI, as far as the module's rule can tell."""
    if is_sync(worker_class) or is_async(worker_class) or is_threaded(worker_class):
        return True
    own = [base for base in worker_class.__mro__ if not issubclass(Worker, base)]
    return not any(_is_coroutine_function(attribute) for base in own for attribute in vars(base).values())


def event_loop_mixins(worker_class: type) -> tuple[type, ...]:
    """Return what goes before a worker class that does not serve WSGI: the measuring mixin of the server that it is
    derived from, or :class:`UnmeasuredMixin`.

    uvicorn's own ``uvicorn.workers.UvicornWorker`` (to 0.38) and uvicorn-worker's are recognised by the module.
    """
    names = {f"{base.__module__}.{base.__name__}" for base in worker_class.__mro__}
    if names & _UVICORN:
        from promgun.workers.uvicorn import UvicornMixin  # noqa: PLC0415 - needs uvicorn

        return (UvicornMixin,)
    if "gunicorn.workers.gasgi.ASGIWorker" in names:
        from promgun.workers.asgi import AsgiMixin  # noqa: PLC0415 - Gunicorn 25.3 and older may have none

        return (AsgiMixin,)
    return (UnmeasuredMixin,)


def _is_coroutine_function(attribute: Any) -> bool:
    function = getattr(attribute, "__func__", attribute)
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


class UnmeasuredMixin(WorkerLifecycle):
    """Shows the worker on the scoreboard and does not touch its application, settings or requests."""

    _serving = False
    _in_run = False

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn of the missing metrics; Gunicorn calls this once, in the master, before the first fork."""
        inherited = getattr(super(), "check_config", None)
        if inherited is not None:
            inherited(cfg, log)
        log.warning(WARNING, cls.__qualname__)

    def capacity(self) -> int:
        """Return 0: how many requests an event loop serves at once is not known."""
        return 0

    def hung_after(self) -> float:
        """Return seconds halfway between the longest pause that Gunicorn allows between heartbeats and the timeout.

        A worker has to call ``notify`` every half of the timeout (``Worker.timeout``, gunicorn 25.3 to 27.0), and
        uvicorn-worker calls it no more often than that.
        """
        return float(self.cfg.timeout) * 3 / 4

    def enter_service(self) -> None:
        """Wait for the first heartbeat: such classes do most of their boot in ``run`` (lifespan, sockets)."""
        self._in_run = True

    def notify(self) -> None:
        """Send the heartbeat; from the first one on the worker is serving."""
        super().notify()
        if not self._serving and self._in_run:
            self._serving = True
            super().enter_service()

    def note_exit(self) -> None:
        """Write to the board why the worker ends by itself."""
        super().note_exit()
        cells = self._board.cells
        if not cells[Cell.EXIT_HINT] and self._serving and self.cfg.max_requests and not self.cfg.reload:
            # The server counts requests itself, and it was not told to stop.
            cells[Cell.EXIT_HINT] = ExitHint.MAX_REQUESTS
