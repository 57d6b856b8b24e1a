"""Says once that the application seems to be of the other kind, WSGI or ASGI, than its worker class calls."""

from __future__ import annotations

from typing import Any
from weakref import ref


class KindDoubt:
    """The doubt of one worker, which calls its application by ASGI (``calls_asgi``) or by WSGI."""

    def __init__(self, worker: Any, *, calls_asgi: bool) -> None:
        self._worker = ref(worker)
        self._calls_asgi = calls_asgi
        self._told = False

    def look(self, error: BaseException | None) -> None:
        """Warn, once, if this exception, which leaves the application, says that it is of the other kind."""
        worker = self._worker()
        if self._told or worker is None or not isinstance(error, TypeError | KeyError):
            return
        try:
            from promgun.workers._application_kind import ADVICE, seen_by_asgi, seen_by_wsgi  # noqa: PLC0415 - its patterns take a millisecond to compile
        except (ImportError, OSError):
            return
        application = worker.app.wsgi()
        seen = (seen_by_asgi if self._calls_asgi else seen_by_wsgi)(application, error)
        if seen is None:
            return
        self._told = True
        worker.log.warning(
            "%s %s: a request failed with %r. %s",
            getattr(worker.app, "app_uri", None) or type(application).__qualname__,
            seen.value.format(getattr(worker.app, "worker_type", "") or type(worker).__qualname__),
            error,
            ADVICE[seen][worker.standalone is not None],
        )
