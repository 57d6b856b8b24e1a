"""What can go wrong, and the exit code of each: knows nothing of the command line."""

from __future__ import annotations

from typing import Final


class ExitCode:
    """Exit codes of ``promgun``: 2 is Click's, 3 and 4 are Gunicorn's, 130 is 128 + SIGINT as shells report it.

    Plain numbers: every command makes this class before all else, and an enum takes thirty times as long to make.
    """

    OK: Final = 0
    CONFIGURATION: Final = 1
    USAGE: Final = 2
    WORKER_BOOT: Final = 3
    APP_LOAD: Final = 4
    NO_INSTANCE: Final = 5
    STORE: Final = 6
    METRICS_ADDRESS: Final = 7
    INTERRUPTED: Final = 130


class PromgunError(Exception):
    """An error that is reported in one line: what is wrong, and (``hint``) what to do next."""

    exit_code: int = ExitCode.CONFIGURATION

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class ConfigurationError(PromgunError):
    """A setting, from a file or the environment, cannot be used."""


class UsageError(PromgunError):
    """The command line itself is wrong."""

    exit_code = ExitCode.USAGE


class WorkerUnavailableError(PromgunError):
    """The chosen worker type cannot run here, e.g. because its library is not installed."""

    exit_code = ExitCode.WORKER_BOOT


class AppLoadError(PromgunError):
    """The application cannot be found or loaded; ``traceback`` is the user's own, when there is one."""

    exit_code = ExitCode.APP_LOAD

    def __init__(self, message: str, hint: str = "", traceback: str = "") -> None:
        super().__init__(message, hint)
        self.traceback = traceback


class InstanceError(PromgunError):
    """No such running instance, more than one, or it does not answer."""

    exit_code = ExitCode.NO_INSTANCE


class StoreError(PromgunError):
    """The store directory is unusable or in use by another running server."""

    exit_code = ExitCode.STORE


class MetricsAddressError(PromgunError):
    """The metrics endpoint cannot listen on the address it was given."""

    exit_code = ExitCode.METRICS_ADDRESS
