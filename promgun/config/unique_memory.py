"""How often each worker's unique memory is read, as flags and variables say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gunicorn import config

from promgun.metrics.defaults import UNIQUE_MEMORY_SECONDS

_SETTING = "metrics_unique_memory"
_VARIABLE = "PROMGUN_METRICS_UNIQUE_MEMORY"


def unique_memory_from(environment: Mapping[str, str]) -> int:
    """Return the seconds of the variable, or the default; raises ``ValueError`` for what is no number of seconds."""
    text = environment.get(_VARIABLE)
    try:
        return int(config.validate_pos_int(text)) if text else UNIQUE_MEMORY_SECONDS
    except ValueError as error:
        raise ValueError(f"{_VARIABLE}: {text!r} is not a whole number of seconds") from error


def unique_memory_of(cfg: Any, environment: Mapping[str, str]) -> int:
    """Return the seconds that a worker goes by: those of its setting, or, under plain Gunicorn, of the variable.

    Of a variable that is no number, which the master has logged, the default.
    """
    setting = cfg.settings.get(_SETTING)
    if setting is not None:
        return int(setting.get())
    try:
        return unique_memory_from(environment)
    except ValueError:
        return UNIQUE_MEMORY_SECONDS
