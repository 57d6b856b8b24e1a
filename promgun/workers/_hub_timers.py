"""Timers of the hubs that run greenlets: gevent's and eventlet's. Neither makes a greenlet, nor needs one to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.workers._heartbeat_marks import marking
from promgun.workers._loop_lag import CallLater, LoopAccounting, LoopLag
from promgun.workers._loop_lag import beating as beating  # noqa: PLC0414 - the mixin imports this module alone
from promgun.workers._server_kinds import derives


def hub_timers(worker: object) -> CallLater | None:
    """Return what calls a function after so many seconds in the hub of this worker; ``None`` if its class has none.

    Both classes send a heartbeat a second. The hub is looked up at the first call: the process has to be patched.
    """
    if derives(type(worker), "gunicorn.workers.ggevent", "GeventWorker"):
        return _gevent_timer()
    if derives(type(worker), "promgun.workers._eventlet_server", "EventletWorker"):
        return _eventlet_timer
    return None


def accounting_on_hub(worker: Any, *facts: Any) -> LoopAccounting | None:
    """Return accounting that is made of these ``facts`` and measures how late the hub of this worker is; ``None`` if
    its class has none.
    """
    timers = hub_timers(worker)
    if timers is None:
        return None
    accounting = LoopAccounting(*facts)
    accounting.lag = LoopLag(accounting.board, accounting.runs, timers, mark=marking(worker.tmp))
    return accounting


def _eventlet_timer(seconds: float, call: Callable[[], None]) -> None:
    from eventlet import hubs  # noqa: PLC0415 - installed, as its worker was imported

    hubs.get_hub().schedule_call_global(seconds, call)


def _gevent_timer() -> CallLater:
    timers: list[Any] = []

    def call_later(seconds: float, call: Callable[[], None]) -> None:
        from gevent import get_hub  # noqa: PLC0415 - same

        if timers:
            # One that has fired and is started again is due at once (gevent 26.9 on libev).
            timers.pop().close()
        timers.append(get_hub().loop.timer(seconds))
        # The loop's clock may be as old as its last step is long.
        timers[0].start(call, update=True)

    return call_later
