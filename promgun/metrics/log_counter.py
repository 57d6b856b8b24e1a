"""Counts the messages of Gunicorn's error log by level, whatever the loggers behind it are called."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from promgun.metrics.counters import Counters
from promgun.metrics.families.master import LOG_MESSAGES
from promgun.metrics.label_values import LogLevel

_LEVELS = {level.name: level for level in LogLevel}
_METHODS = {
    "critical": LogLevel.CRITICAL,
    "error": LogLevel.ERROR,
    "exception": LogLevel.ERROR,
    "warning": LogLevel.WARNING,
    "info": LogLevel.INFO,
    "debug": LogLevel.DEBUG,
}


class LogCounter(logging.Filter):
    """Counts the records of the loggers that it is a filter of; lets all of them pass.

    A filter, not a handler: Gunicorn replaces handlers when it reads its configuration again (27.0 ``Arbiter.setup``).
    """

    def __init__(self, counters: Counters) -> None:
        super().__init__()
        self._counters = counters
        self._counted = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Count the record."""
        level = _LEVELS.get(record.levelname)
        if level is not None:
            self._counted.records = self.counted + 1
            self._counters.inc(LOG_MESSAGES, (level,))
        return True

    @property
    def counted(self) -> int:
        """How many records of this thread were counted."""
        return int(getattr(self._counted, "records", 0))

    def count_calls(self, method: Callable[..., Any], level: LogLevel, log: Any) -> Callable[..., Any]:
        """Return ``method``, which logs at ``level``, counting the calls that reach none of the loggers counted."""

        @functools.wraps(method)
        def counting(*args: Any, **kwargs: Any) -> Any:
            before = self.counted
            result = method(*args, **kwargs)
            least = getattr(log, "loglevel", logging.NOTSET)
            enabled = not isinstance(least, int) or getattr(logging, level.name) >= least
            if enabled and self.counted == before:
                self._counters.inc(LOG_MESSAGES, (level,))
            return result

        counting.counts = method  # type: ignore[attr-defined] # so that a child of the process replaces it
        return counting


def count_log(counters: Counters, log: Any = None) -> None:
    """Count with ``counters`` what ``log``, an instance of the logger class, writes to its error log, and the records
    of Gunicorn's own logger.

    A ``LogCounter`` from an earlier call, also from before the fork, is removed. A class whose methods write to a
    logger other than its ``error_log`` is counted by the calls of these methods.
    """
    counter = LogCounter(counters)
    own = getattr(log, "error_log", None)
    loggers = {logging.getLogger("gunicorn.error")}
    if has_own := isinstance(own, logging.Logger):
        loggers.add(own)
    for logger in loggers:
        for present in [item for item in logger.filters if isinstance(item, LogCounter)]:
            logger.removeFilter(present)
        logger.addFilter(counter)
    for name, level in _METHODS.items():
        method = getattr(log, name, None)
        original = getattr(method, "counts", method)
        is_gunicorns = getattr(original, "__module__", "") == "gunicorn.glogging"
        # Gunicorn's logger has a class of its own, so its attributes can be set; another kind of object may refuse it.
        if original is not None and not (is_gunicorns and has_own):
            with suppress(AttributeError, TypeError):
                setattr(log, name, counter.count_calls(original, level, log))
