"""What a command was asked to do, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class RunSettings(NamedTuple):
    """What ``promgun run`` was given: the application, and only those Gunicorn settings that a flag or a
    ``PROMGUN_*`` variable named (setting name to value), so that no default of ours beats a line of the user's file.
    """

    app: str | None
    overrides: Mapping[str, object] = MappingProxyType({})
