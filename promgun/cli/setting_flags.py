"""The settings of the installed Gunicorn, and ours, as flags and variables: what holds with Click and without it."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from typing import Any

from promgun.cli.choices import CHECKED_HERE, CHOICES
from promgun.config.worker_types import WORKER_TYPES

PREFIX = "PROMGUN_"
WORKER_FLAGS = ("--worker-type", "-k", "--worker-class")
WITHOUT_VALUE = frozenset({"store_true", "store_const"})


def settings_with_flags() -> list[Any]:
    """Return the classes of the settings that have flags, section by section: ours, then Gunicorn's."""
    from gunicorn.config import KNOWN_SETTINGS  # noqa: PLC0415 - 60 ms that only ``run`` needs

    from promgun.config.gunicorn_settings import SECTION  # noqa: PLC0415 - same; importing it adds our settings to Gunicorn's

    settings = [setting for setting in KNOWN_SETTINGS if setting.cli]
    sections = list(dict.fromkeys([SECTION, *(setting.section for setting in settings)]))
    return sorted(settings, key=lambda setting: (sections.index(setting.section), setting.order))


def spellings(setting: Any) -> tuple[str, ...]:
    """The flags of a setting; one with an underscore (``--limit-request-field_size``) also has a hyphenated form."""
    if setting.name == "worker_class":
        return WORKER_FLAGS
    tidy = [flag.replace("_", "-") for flag in setting.cli]
    return tuple(dict.fromkeys([*tidy, *setting.cli]))


def variable(flags: tuple[str, ...]) -> str:
    """The environment variable of an option: its first long name, as ``PROMGUN_WORKER_TYPE`` for ``--worker-type``."""
    long = next(flag for flag in flags if flag.startswith("--"))
    return PREFIX + re.sub(r"[-.]", "_", long.removeprefix("--")).upper()


def accepted(setting: Any, value: Any) -> Any:
    """Return a value for ``Config.set``, after the setting has accepted it; raises what its type and validator raise,
    and ``ValueError`` where Gunicorn's own validator takes any text.
    """
    if setting.type is not None:
        value = setting.type(value)
    if setting.name in CHECKED_HERE and str(value).lower() not in CHOICES.get(setting.name, ()):
        raise ValueError(value)
    # A validator may warn (ssl_version, reload_extra_files); it will do so again where the value is used.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        setting.validator([value] if setting.action == "append" else value)
    return value


def is_worker_class(value: Any) -> bool:
    """Whether a value names a worker type, ours or Gunicorn's, or looks like the dotted path of a class."""
    from gunicorn.workers import SUPPORTED_WORKERS  # noqa: PLC0415 - the CLI imports this module at start

    plain = str(value).strip().removeprefix("#")
    names = {worker_type.name for worker_type in WORKER_TYPES}
    return plain in names or plain in SUPPORTED_WORKERS or "." in plain or plain.startswith("egg:")


def override(setting: Any, value: Any) -> object:
    """Turn what a command line gives into what ``Config.set`` takes; ``None`` when the setting is to be left alone.

    A variable can say no to a flag that has no opposite (``PROMGUN_NO_SENDFILE=0``): that is the setting's default, if
    it has one.
    """
    if setting.action == "store_const":
        return setting.const if value else setting.default
    return list(value) if setting.action == "append" else value
