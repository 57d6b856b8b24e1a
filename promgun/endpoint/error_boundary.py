"""The one place where errors raised by what the endpoint calls are caught."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

logger = logging.getLogger("promgun.endpoint")

# An error whose text differs each time must not fill the memory or the log.
_MOST_KINDS = 100


class ErrorBoundary:
    """Errors by their text, each logged (with its traceback) when it is first seen."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def guard(
        self, call: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result | None:
        """Return what ``call`` returns, ``None`` if it raises; the error is counted, and logged once."""
        try:
            return call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the endpoint must answer whatever the collector does
            self._note(error)
            return None

    def report(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Be asyncio's exception handler, so that no client can fill the log through the default one."""
        self._note(context.get("exception") or RuntimeError(context["message"]))

    def _note(self, error: BaseException) -> None:
        kind = f"{type(error).__name__}: {error}"
        if kind not in self.seen and len(self.seen) >= _MOST_KINDS:
            kind = "others"
        if kind not in self.seen:
            logger.error("The metrics endpoint met an error, reported once: %s", kind, exc_info=error)
        self.seen[kind] += 1
