"""Timers of the hubs that run greenlets: each call waits its time, also after the timer has fired."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest
from gunicorn.workers.ggevent import GeventWorker

from promgun.workers._hub_timers import hub_timers

INTERVAL = 0.05


@pytest.mark.parametrize("calls", [1, 4])
def test_each_call_of_a_hub_waits_its_time(calls: int) -> None:
    call_later = hub_timers(object.__new__(GeventWorker))
    assert call_later is not None
    begin, fired = monotonic(), list[float]()

    def fire() -> None:
        fired.append(monotonic() - begin)
        if len(fired) < calls:
            call_later(INTERVAL, fire)

    call_later(INTERVAL, fire)
    while len(fired) < calls:
        assert monotonic() - begin < 20
        gevent.sleep(INTERVAL / 5)
    waits = [later - earlier for earlier, later in zip([0.0, *fired], fired, strict=False)]
    assert min(waits) >= INTERVAL * 0.9
    gevent.sleep(2 * INTERVAL)
    assert len(fired) == calls
