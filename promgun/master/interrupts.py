"""Delays Ctrl-C during imports: C code that it interrupts reports an ImportError instead."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Delay SIGINT until the block ends (CPython 3.11 ``ssl``: "PyCapsule_Import could not import module")."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
