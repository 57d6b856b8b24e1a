"""Reads the usual command lines of ``promgun run`` without Click, whose import takes a sixth of a server's start.

What is not usual is left to Click, which knows every form and has every message: help, an unknown or repeated flag, a
value that is refused or begins with a hyphen, a variable that sets an option. For the rest both give the same settings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from promgun.cli.setting_flags import (
    PREFIX,
    WITHOUT_VALUE,
    accepted,
    is_worker_class,
    override,
    settings_with_flags,
    spellings,
    variable,
)
from promgun.config.run_settings import RunSettings

_APP_VARIABLE = "PROMGUN_APP"
#: Settings that print, so that the pipe may be gone: Click ends such a program without a traceback.
_PRINTING = frozenset({"print_config"})


class _UnusualError(Exception):
    """The command line is for Click."""


def read_plain(args: Sequence[str], environment: Mapping[str, str]) -> RunSettings | None:
    """Return the settings that ``promgun`` was given by ``args``; ``None`` for a command line that is left to Click."""
    if args[:1] != ["run"] or not environment.get("WEB_CONCURRENCY", "1").isdecimal():
        return None
    settings = {setting: spellings(setting) for setting in settings_with_flags()}
    if _are_set(settings.values(), environment):
        return None
    by_flag = {flag: setting for setting, flags in settings.items() for flag in flags}
    try:
        app, given = _read(iter(args[1:]), by_flag)
    except (_UnusualError, ValueError, TypeError, OSError, LookupError, _config_error()):
        return None
    values = {setting.name: override(setting, given[setting]) for setting in settings if setting in given}
    return RunSettings(app=app, overrides={name: value for name, value in values.items() if value is not None})


def _config_error() -> type[Exception]:
    from gunicorn.errors import ConfigError  # noqa: PLC0415 - Gunicorn is there once a setting is

    return ConfigError  # type: ignore[no-any-return] # gunicorn is untyped


def _are_set(flags: Collection[tuple[str, ...]], environment: Mapping[str, str]) -> bool:
    # Most environments have no such variable, and to spell the names takes as long as to read the command line.
    if not any(name.startswith(PREFIX) for name in environment):
        return False
    return _APP_VARIABLE in environment or any(variable(names) in environment for names in flags)


def _read(words: Iterator[str], by_flag: Mapping[str, Any]) -> tuple[str | None, dict[Any, Any]]:
    app: str | None = None
    given: dict[Any, Any] = {}
    for word in words:
        if not word.startswith("-"):
            if app is not None or not word:
                raise _UnusualError
            app = word
            continue
        flag, equals, value = word.partition("=")
        setting = by_flag[flag]
        if setting.name in _PRINTING or setting.nargs or (equals and not flag.startswith("--")):
            raise _UnusualError
        takes_value = setting.action not in WITHOUT_VALUE
        if setting.action == "append":
            given.setdefault(setting, []).append(_value(setting, value if equals else next(words, "")))
        elif setting in given or (equals and not takes_value):
            raise _UnusualError
        else:
            given[setting] = _value(setting, value if equals else next(words, "")) if takes_value else True
    return app, given


def _value(setting: Any, text: str) -> Any:
    if not text or text.startswith("-"):
        raise _UnusualError
    if setting.name != "worker_class":
        return accepted(setting(), text)
    if not is_worker_class(text):
        raise _UnusualError
    return text
