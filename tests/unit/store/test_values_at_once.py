"""Values of prometheus_client's metrics, however threads, greenlets, forks, signals and collections fall."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram

from promgun.store import values
from promgun.store.values import SlotValue, value_class
from tests.support.store_fixtures import (
    Opened,
    client_of,
    fork,
    in_fresh_interpreter,
    move_in,
    page_totals,
    published,
    release,
    stock_totals,
    sum_of,
    wait_for,
)
from tests.unit.store.test_values import counter

# ---- threads, greenlets, tasks


def run_together(work: Callable[[], None], count: int = 8) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_lose_nothing(place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = counter()
    histogram = Histogram("h", "Help.", registry=None, buckets=(1, 2))
    gauge = Gauge("g", "Help.", registry=None, multiprocess_mode="livesum")
    labelled = counter("l", "n")
    rounds = 4000
    previous = sys.getswitchinterval()
    monkeypatch.setattr(sys, "setswitchinterval", sys.setswitchinterval)
    sys.setswitchinterval(1e-5)

    def work() -> None:
        for n in range(rounds):
            plain.inc()
            histogram.observe(1.5)
            gauge.inc()
            gauge.dec()
            labelled.labels(n % 97).inc()

    try:
        run_together(work)
    finally:
        sys.setswitchinterval(previous)
    page = page_totals(tmp_path)
    assert page == stock_totals(tmp_path)
    assert page["c_total{}"] == page["h_count{}"] == 8 * rounds
    assert page["h_sum{}"] == 8 * rounds * 1.5
    assert page["g{}"] == 0.0
    assert sum_of(page, "l_total") == 8 * rounds
    assert place.store.number == 1


def _gevent(path: str) -> float:
    from gevent import monkey  # noqa: PLC0415 - patches at once

    monkey.patch_all()
    import gevent  # noqa: PLC0415 - after the patch

    store = published(path)
    plain, labelled = Counter("c", "Help."), Counter("l", "Help.", ["n"])

    def work() -> None:
        for n in range(100):
            plain.inc()
            gevent.sleep(0)
            labelled.labels(n).inc()

    gevent.joinall([gevent.spawn(work) for _ in range(50)], raise_error=True)
    release(store)
    page = page_totals(Path(path))
    return page["c_total{}"] + sum_of(page, "l_total")


def _eventlet(path: str) -> float:
    import warnings  # noqa: PLC0415 - for what eventlet says of itself

    warnings.simplefilter("ignore")
    import eventlet  # noqa: PLC0415 - patches at once

    eventlet.monkey_patch()
    store = published(path)
    plain, labelled = Counter("c", "Help."), Counter("l", "Help.", ["n"])

    def work() -> None:
        for n in range(100):
            plain.inc()
            eventlet.sleep(0)
            labelled.labels(n).inc()

    for green in [eventlet.spawn(work) for _ in range(50)]:
        green.wait()
    release(store)
    page = page_totals(Path(path))
    return page["c_total{}"] + sum_of(page, "l_total")


@pytest.mark.unmeasured("the processor alone bounds it, and measuring makes it several times as slow")
@pytest.mark.parametrize("library", [_gevent, _eventlet])
def test_greenlets_lose_nothing(tmp_path: Path, library: Callable[[str], float]) -> None:
    assert in_fresh_interpreter(library, tmp_path) == 10_000


def test_tasks_lose_nothing(place: Opened, tmp_path: Path) -> None:
    plain, labelled = counter(), counter("l", "n")

    async def work() -> None:
        for n in range(100):
            plain.inc()
            await asyncio.sleep(0)
            labelled.labels(n).inc()

    async def together() -> None:
        await asyncio.gather(*[work() for _ in range(50)])

    asyncio.run(together())
    page = page_totals(tmp_path)
    assert page["c_total{}"] == sum_of(page, "l_total") == 5000
    assert place.store.number == 1


# ---- forks


def _fork_within(path: str) -> list[int]:
    """Children go on with metrics that the parent made and made new ones; grandchildren too."""
    store = published(path)
    plain = Counter("c", "Help.")
    labelled = Counter("l", "Help.", ["n"])
    gauge = Gauge("g", "Help.", multiprocess_mode="livesum")
    bound = labelled.labels("old")
    plain.inc(1)
    bound.inc(1)
    gauge.set(5)

    def child() -> None:
        # What a value says is what its slot holds, and an ended sibling may have had that before.
        assert plain._value.get() % 10 == 0
        plain.inc(10)
        bound.inc(10)
        labelled.labels("new").inc(10)
        gauge.inc(2)
        wait_for(fork(grandchild))
        plain.inc(1000)

    def grandchild() -> None:
        plain.inc(100)
        bound.inc(100)

    wait_for(*[fork(child) for _ in range(3)])
    plain.inc(1)
    assert plain._value.get() == 2.0
    assert store.number is not None
    return [store.number]


def test_forks_have_values_of_their_own(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_fork_within, tmp_path) == [1]
    page = page_totals(tmp_path)
    assert page["c_total{}"] == 2 + 3 * 1110
    assert page["l_total{n=old}"] == 1 + 3 * 110
    assert page["l_total{n=new}"] == 30
    counters = stock_totals(tmp_path)
    assert {key: value for key, value in counters.items() if key != "g{}"} == {
        key: value for key, value in page.items() if key != "g{}"
    }


def _fork_while_threads_count(path: str) -> list[float]:
    store = published(path)
    sys.setswitchinterval(1e-5)
    plain = Counter("c", "Help.")
    histogram = Histogram("h", "Help.", buckets=(1,))
    made = Counter("m", "Help.", ["n"])
    stop = threading.Event()
    counted = [0] * 3

    def work(number: int) -> None:
        while not stop.is_set():
            plain.inc()
            histogram.observe(0.5)
            # of a metric of its own: prometheus_client holds a lock in labels() that a fork copies as it is
            mine[number].labels(counted[number] % 3000).inc()
            counted[number] += 1

    mine = [Counter(f"m{number}", "Help.", ["n"]) for number in range(3)]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()

    def child() -> None:
        signal.alarm(30)
        for n in range(20):
            plain.inc()
            histogram.observe(0.5)
            made.labels(n).inc()

    for _ in range(12):
        wait_for(fork(child))
    stop.set()
    for thread in threads:
        thread.join()
    move_in(store)
    return [float(sum(counted)), 12 * 20.0]


@pytest.mark.unmeasured("the processor alone bounds it, and measuring makes it several times as slow")
def test_forks_while_threads_count(tmp_path: Path) -> None:
    in_parent, in_children = in_fresh_interpreter(_fork_while_threads_count, tmp_path)
    page = page_totals(tmp_path)
    assert in_parent > 0
    assert page["c_total{}"] == page["h_count{}"] == in_parent + in_children
    assert page["h_sum{}"] == 0.5 * (in_parent + in_children)
    assert sum_of(page, "m_total") == in_children
    assert sum(sum_of(page, f"m{number}_total") for number in range(3)) == in_parent
    assert page == stock_totals(tmp_path)
    assert len(list(client_of(tmp_path).glob("counter_*.db"))) == 2


def test_a_value_that_finds_its_place_late_takes_no_lock_twice(place: Opened, tmp_path: Path) -> None:
    plain = counter()
    plain.inc()
    # what the child of a fork does
    release(place.store)
    place.store._detach()
    plain.inc(2)
    gauge = Gauge("g", "Help.", registry=None)
    gauge._value.detach()
    gauge.set(3)
    assert page_totals(tmp_path) == {"c_total{}": 3.0, "g{worker_id=1}": 3.0}


# ---- interrupted


def _interrupted_by_signals(path: str, seconds: float) -> list[float]:
    """A handler counts in between anything the main thread does, which makes label sets all the time."""
    store = published(path)
    plain, histogram = Counter("c", "Help."), Histogram("h", "Help.", buckets=(1,))
    gauge = Gauge("g", "Help.", multiprocess_mode="livesum")
    outside, inside = Counter("o", "Help.", ["n"]), Counter("i", "Help.", ["n"])
    handled = refused = 0
    real = store.count_error

    def count_error(error: OSError) -> None:
        nonlocal refused
        refused += error.errno == errno.EAGAIN
        real(error)

    store.count_error = count_error  # type: ignore[method-assign] # to see how often a handler came in between

    def handler(_number: int, _frame: object) -> None:
        nonlocal handled
        handled += 1
        plain.inc()
        histogram.observe(0.5)
        gauge.inc()
        inside.labels(handled % 1000).inc()
        signal.setitimer(signal.ITIMER_REAL, 0.0001)

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0001)
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end or handled < 2000 or not refused:
        rounds += 1
        plain.inc()
        histogram.observe(0.5)
        gauge.dec()
        outside.labels(rounds % 20_000).inc()
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    move_in(store)
    return [float(rounds), float(handled), float(refused)]


@pytest.mark.unmeasured("the processor alone bounds it, and measuring makes it several times as slow")
def test_a_signal_handler_that_counts_neither_hangs_nor_loses(tmp_path: Path) -> None:
    rounds, handled, refused = in_fresh_interpreter(_interrupted_by_signals, tmp_path, 1.0)
    assert handled >= 2000
    assert refused > 0
    page = page_totals(tmp_path)
    assert page["c_total{}"] == page["h_count{}"] == rounds + handled
    assert page["h_sum{}"] == 0.5 * (rounds + handled)
    assert page["g{}"] == handled - rounds
    assert sum_of(page, "o_total") == rounds
    assert sum_of(page, "i_total") == handled
    assert page == stock_totals(tmp_path)


def _interrupted_by_collections(path: str) -> list[float]:
    store = published(path)
    plain, made, inside = Counter("c", "Help."), Counter("m", "Help.", ["n"]), Counter("i", "Help.", ["n"])
    collected = 0

    def callback(_phase: str, _info: object) -> None:
        nonlocal collected
        collected += 1
        plain.inc()
        inside.labels(collected % 500).inc()

    gc.callbacks.append(callback)
    gc.set_threshold(3)
    keep: list[list[int]] = []
    for n in range(3000):
        keep.append([])
        plain.inc()
        made.labels(n).inc()
    gc.disable()
    gc.callbacks.remove(callback)
    move_in(store)
    return [3000.0, float(collected)]


@pytest.mark.unmeasured("the processor alone bounds it, and measuring makes it several times as slow")
def test_a_collection_callback_that_counts_neither_hangs_nor_loses(tmp_path: Path) -> None:
    rounds, collected = in_fresh_interpreter(_interrupted_by_collections, tmp_path)
    assert collected > 1000
    page = page_totals(tmp_path)
    assert page["c_total{}"] == rounds + collected
    assert sum_of(page, "m_total") == rounds
    assert sum_of(page, "i_total") == collected


def test_a_handler_at_every_step_of_a_new_value(place: Opened, tmp_path: Path) -> None:
    """What a signal handler, or another thread, can come in between: every line of the store's slow path."""
    store = place.store
    made = value_class(store.app.values)
    ours = [
        str(Path(values.__file__).with_name(name)) for name in ("process.py", "placed_values.py", "files.py", "home.py")
    ]
    steps = total = 0
    while True:
        value: SlotValue = made("counter", "c", "c_total", ("n",), (str(steps),), "Help.")
        value.detach()
        seen = 0
        handled = False

        def trace(frame: Any, event: str, _argument: object, step: int = steps, value: SlotValue = value) -> Any:
            nonlocal seen, handled
            if frame.f_code.co_filename not in ours:
                return None
            if event == "line":
                seen += 1
                if seen == step and not handled:
                    handled = True
                    value.inc(1)
                    made("counter", "d", "d_total", ("n",), (str(step),), "Help.").inc(1)
            return trace

        previous = sys.gettrace()
        sys.settrace(trace)
        try:
            fresh = made("counter", "e", "e_total", ("n",), (str(steps),), "Help.")
            fresh.inc(1)
            value.inc(1)
        finally:
            sys.settrace(previous)
        total += 1 + handled
        place.retry()
        assert value.get() == 1 + handled
        if steps and not handled:
            break
        steps += 1
    assert steps > 30
    page = page_totals(tmp_path)
    assert sum_of(page, "c_total") == total
    assert sum_of(page, "d_total") == total - (steps + 1)
    assert sum_of(page, "e_total") == steps + 1
    assert page == stock_totals(tmp_path)
