"""What waits while modules are imported: the garbage collector, and Ctrl-C."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_waits(*, freeze: bool = True) -> Iterator[None]:
    """Look for no cyclic garbage until the block ends: imports make objects by the thousand and next to none of it.

    With ``freeze`` none is ever looked for among the objects that exist by then. So no collection begins at the end of
    the block, and forked workers do not visit, and so copy, all that was imported here when they end: two thirds of an
    end's CPU. Not for a process that has loaded what is the user's: that is collected and finalized as ever.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if collected:
            gc.enable()


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Delay SIGINT until the block ends: C code that it interrupts reports an ImportError instead (CPython 3.11
    ``ssl``: "PyCapsule_Import could not import module").
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
