"""Forks of a master: which one is the worker's, and what the master keeps of it."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from pathlib import Path
from typing import Any

import gunicorn.config

from promgun.store.board import Role
from promgun.store.process import STORE
from promgun.workers._fork_signals import DEFERRED_SIGNALS, DeferredSignals, guard_pre_fork
from tests.support.store_fixtures import fork, in_fresh_interpreter, open_directory, wait_for


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


def _forks_in_a_hook(path: str) -> list[Any]:
    """A worker object is made, a hook forks, and then Gunicorn does; in either child: slot, role, default SIGTERM."""
    STORE.open(open_directory(path))
    STORE.own_slot(Role.MASTER)
    DEFERRED_SIGNALS.install()
    cfg = gunicorn.config.Config()
    reading, writing = os.pipe()

    def tell() -> None:
        is_default = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        os.write(writing, bytes([STORE.number or 0, STORE.role, is_default]))

    def hook(_server: Any, _worker: Any) -> None:
        wait_for(fork(tell))

    cfg.set("pre_fork", hook)
    told: list[Any] = []
    for _ in range(2):
        worker = Worker()
        STORE.reserve()
        DEFERRED_SIGNALS.expect_fork(worker)
        guard_pre_fork(cfg)
        cfg.pre_fork(None, worker)
        wait_for(fork(tell))
        told += [list(os.read(reading, 3)), list(os.read(reading, 3))]
    return [*told, cfg.pre_fork.__wrapped__ is hook, f"<{hook.__qualname__}()>" in str(cfg)]


def test_a_child_of_a_hook_gets_nothing_that_is_for_the_worker(tmp_path: Path) -> None:
    first, worker, second, next_worker, *shown = in_fresh_interpreter(_forks_in_a_hook, tmp_path)
    assert first == second == [0, Role.OTHER, True]
    assert (worker, next_worker) == ([1, Role.WORKER, False], [1, Role.WORKER, False])
    assert shown == [True, True], "guarded once, and shown as it was given"
