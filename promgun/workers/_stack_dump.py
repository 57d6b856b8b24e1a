"""Dumps the stacks of a stuck worker to the error log when the master asks for them by SIGURG.

faulthandler's handler is C and async-signal-safe: it shows all threads even while the interpreter is stuck in a C
call. Greenlets and asyncio's tasks are shown by a Python handler, if the interpreter gets to run it. A process without
a handler ignores SIGURG, so asking does no harm.
"""

from __future__ import annotations

import faulthandler
import gc
import io
import os
import signal
import sys
import traceback
from typing import Any

STACK_SIGNAL = signal.SIGURG
_MOST_GREENLETS = 200


class StackDump:
    """Answers :data:`STACK_SIGNAL` in a worker with the stacks of all threads, tasks and greenlets on the error log."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._fd = -1
        self._answered = False

    def install(self) -> None:
        """Begin to answer SIGURG; called once a second, because the error log may have been reopened."""
        self._answered = False
        fd = self._error_fd()
        if fd == self._fd:
            return
        self._fd = fd
        signal.signal(STACK_SIGNAL, self._show)
        faulthandler.register(STACK_SIGNAL, file=fd, all_threads=True, chain=True)

    def _error_fd(self) -> int:
        """Return the descriptor of Gunicorn's error log, or of standard error if the log has none."""
        handlers = getattr(getattr(self._log, "error_log", None), "handlers", [])
        return next((fd for fd in map(_descriptor, handlers) if fd >= 0), 2)

    def finish(self) -> None:
        """Show the tasks and greenlets if that is not done yet: SIGABRT, which ends the worker, may interrupt SIGURG's
        handler or come before it.
        """
        if self._fd >= 0:
            self._show(STACK_SIGNAL, None)

    def _show(self, _signal: int, _frame: Any) -> None:
        if self._answered:
            return
        shown = _task_stacks() + _greenlet_stacks()
        if shown:
            os.write(self._fd, shown.encode("utf-8", "replace"))
        self._answered = True


def _task_stacks() -> str:
    if "asyncio" not in sys.modules:
        return ""
    try:
        from promgun.workers._task_dump import task_stacks  # noqa: PLC0415 - servers of WSGI have hardly ever a task
    except (ImportError, OSError):
        return ""
    return task_stacks()


def _greenlet_stacks() -> str:
    module = sys.modules.get("greenlet")
    if module is None:
        return ""
    out = io.StringIO()
    shown = 0
    current = module.getcurrent()
    for item in gc.get_objects():
        if isinstance(item, module.greenlet) and item is not current and item.gr_frame is not None:
            shown += 1
            if shown > _MOST_GREENLETS:
                break
            out.write(f"Greenlet {item!r}:\n")
            traceback.print_stack(item.gr_frame, file=out)
    return out.getvalue()


def _descriptor(handler: Any) -> int:
    try:
        return int(handler.stream.fileno())
    except (AttributeError, OSError, ValueError):
        return -1
