"""Forks of a master: which one is the worker's, and what the master keeps of it."""

from __future__ import annotations

import gc
import signal
import weakref

from promgun.workers._fork_signals import DeferredSignals
from tests.support.store_fixtures import fork, in_fresh_interpreter, wait_for


class Worker:
    """What a master forks, as Gunicorn's ``Worker.__init__`` leaves it."""

    pid = "[booting]"


def _forked_worker() -> list[bool]:
    signals = DeferredSignals()
    signals.install()
    worker = Worker()
    forgotten = weakref.ref(worker)
    signals.expect_fork(worker)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    wait_for(fork(lambda: None))
    del worker
    gc.collect()
    return [forgotten() is None, mask == signal.pthread_sigmask(signal.SIG_BLOCK, ())]


def test_a_master_keeps_nothing_of_a_worker_that_is_forked() -> None:
    """A worker that it kept would keep its slot: the next one would take another."""
    assert in_fresh_interpreter(_forked_worker) == [True, True]
