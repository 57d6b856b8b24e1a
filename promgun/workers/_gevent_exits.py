"""What Gunicorn's gevent worker drops in ``handle_request`` without a trace, seen before it is dropped.

``GeventWorker.handle_request`` (gunicorn 25.3 to 27.0) calls the method of its base class and drops ``GreenletExit``
and ``SystemExit``. Only the base class's method can be followed so that a body that raised one of them is noticed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

Handle = Callable[..., Any]


def dropped_by(handle: Handle) -> tuple[type[BaseException], ...]:
    """Return the exceptions that ``handle``, a bound ``handle_request``, drops: none if it is not that of gevent's."""
    worker_class = _gevent_worker()
    if worker_class is None or getattr(handle, "__func__", None) is not worker_class.handle_request:
        return ()
    from gevent import GreenletExit  # noqa: PLC0415 - installed, as its worker was imported

    return GreenletExit, SystemExit


def follow_inside(handle: Handle, follow: Callable[[Handle], Handle]) -> Handle:
    """Return ``follow(handle)``; of gevent's, one that follows what it calls, and drops what it drops."""
    dropped = dropped_by(handle)
    if not dropped:
        return follow(handle)
    follow_request = follow(super(_gevent_worker(), handle.__self__).handle_request)  # type: ignore[attr-defined] # bound

    def drop_exits(listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        try:  # noqa: SIM105 - suppress() would cost each request a context manager
            follow_request(listener_name, req, sock, addr)
        except dropped:
            pass

    return drop_exits


def _gevent_worker() -> Any:
    return getattr(sys.modules.get("gunicorn.workers.ggevent"), "GeventWorker", None)
