"""Tells what a signal handler raised from what the interrupted code raised."""

from __future__ import annotations

import signal
import traceback


def raised_in_signal_handler(error: BaseException) -> bool:
    """Whether a signal handler of this process, or what it called, raised ``error`` into the code that it interrupted.

    CPython runs a handler on top of the interrupted frame, so the handler is in the traceback (3.10 to 3.13). The
    handler that Python sets for SIGINT leaves no frame; it raises ``KeyboardInterrupt``.
    """
    if isinstance(error, KeyboardInterrupt):
        return True
    handlers = (signal.getsignal(number) for number in signal.valid_signals())
    codes = {getattr(handler, "__code__", None) for handler in handlers} - {None}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))
