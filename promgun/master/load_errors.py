"""Errors of loading the application, as printed by a worker, with ``--preload`` and by ``--check-config``."""

from __future__ import annotations

import sys

from gunicorn.errors import AppImportError

from promgun.config.app_check import suggest
from promgun.master.tracebacks import own_traceback


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
