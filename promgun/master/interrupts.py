"""Ctrl-C while modules are imported: it waits, for C code that is interrupted there hides it behind an ImportError."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let SIGINT wait until the block is over (CPython 3.11 ``ssl``: "PyCapsule_Import could not import module")."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
