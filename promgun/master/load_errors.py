"""Errors of loading the application, as printed by a worker, with ``--preload`` and by ``--check-config``; their
tracebacks are cut down to the user's own code.
"""

from __future__ import annotations

import os
import sys
import traceback as tracebacks
from collections.abc import Iterator
from importlib.util import find_spec
from types import TracebackType

from gunicorn.errors import AppImportError

from promgun.config.app_check import suggest

_OURS = tuple(
    folder + os.sep
    for name in ("gunicorn", "promgun")
    if (spec := find_spec(name)) is not None
    for folder in spec.submodule_search_locations or ()
)


class ApplicationRefusedError(AppImportError):  # type: ignore[misc] # gunicorn is untyped
    """The application cannot be loaded: one line, below the user's own ``traceback`` where there is one.

    Gunicorn prints its text in the worker and ends with 4 (27.0 ``Arbiter.spawn_worker``).
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__("\n".join(filter(None, (traceback, f"promgun: error: {message}"))))
        self.message = message
        self.traceback = traceback


def failure_of(app: str, error: BaseException) -> ApplicationRefusedError:
    """Return the error for an application whose module or factory raised ``error``."""
    return ApplicationRefusedError(f"The application {app} cannot be loaded", own_traceback(error))


def refusal_of(app: str, error: AppImportError) -> ApplicationRefusedError:
    """Return the error for an application whose module was imported but has no such callable, with a suggestion."""
    module_name = app.partition(":")[0]
    module = sys.modules.get(module_name)
    if module is None or not any(word in str(error) for word in ("attribute", "callable", "object")):
        return ApplicationRefusedError(f"{app}: {error}")
    candidates = [name for name, value in vars(module).items() if callable(value)]
    wanted = app.partition(":")[2].partition("(")[0] or "application"
    return ApplicationRefusedError(f"{app}: {error} {suggest(wanted, candidates, module_name)}")


def own_traceback(error: BaseException) -> str:
    """Format an exception without the frames of promgun, Gunicorn and the import system above the user's own."""
    shown = error.with_traceback(next(_own_frames(error), None))
    return "".join(tracebacks.format_exception(type(error), shown, shown.__traceback__)).rstrip()


def is_own_exit(error: SystemExit) -> bool:
    """Tell whether the user's code raised ``error``, and not a signal handler of the server that interrupted it."""
    own = [frame.tb_frame.f_code.co_filename for frame in _own_frames(error)]
    return bool(own) and not any(filename.startswith(_OURS) for filename in own)


def _own_frames(error: BaseException) -> Iterator[TracebackType]:
    frame = error.__traceback__
    while frame is not None and _is_foreign(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    while frame is not None:
        yield frame
        frame = frame.tb_next


def _is_foreign(filename: str) -> bool:
    return filename.startswith(_OURS) or "importlib" in filename
