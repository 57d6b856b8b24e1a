"""What a command was asked to do, as frozen data, and the variables that tell a master that another executed it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: Set by Gunicorn's ``Arbiter.reexec`` for the master that it executes.
GUNICORN_PID = "GUNICORN_PID"
#: Set by ours: what the old master hands over (``config.reexec``).
HANDOVER = "PROMGUN_HANDOVER"


class RunSettings:
    """What ``promgun run`` was given: the application, and only those Gunicorn settings that a flag or a
    ``PROMGUN_*`` variable named (setting name to value), so that no default of ours beats a line of the user's file.
    """

    __slots__ = ("app", "overrides")

    def __init__(self, app: str | None, overrides: Mapping[str, object] = MappingProxyType({})) -> None:
        self.app = app
        self.overrides = overrides
