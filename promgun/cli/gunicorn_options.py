"""The options of ``promgun run``: generated from the settings of the installed Gunicorn, to which ours are added."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from promgun.cli.choices import CHOICES, PATH_PLACEHOLDERS, PATH_SETTINGS
from promgun.cli.setting_flags import (
    PREFIX,
    WITHOUT_VALUE,
    accepted,
    override,
    settings_with_flags,
    spellings,
    variable,
)
from promgun.cli.types import ParamType, WorkerClassType, completion, starting_with

if TYPE_CHECKING:
    from promgun.cli.types import Items

_GIVEN = frozenset({ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT})


class SettingType(ParamType):
    """A value that the setting's own ``type`` and ``validator`` accept; what they refuse is a usage error."""

    def __init__(self, setting: Any) -> None:
        self.setting = setting
        self.name = str(setting.name)
        self.choices = CHOICES.get(setting.name, ())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Give the value for ``Config.set``, after the setting has accepted it."""
        from gunicorn.errors import ConfigError  # noqa: PLC0415 - Gunicorn is there once a setting is

        try:
            return accepted(self.setting, value)
        except (ValueError, TypeError, ConfigError, OSError) as error:
            return self.fail(self._reason(value, error), param, ctx)

    def _reason(self, value: Any, error: Exception) -> str:
        if self.choices:
            return f"{value!r} is not one of {', '.join(self.choices)}"
        text = str(error)
        if text.startswith("invalid literal for int()"):
            return f"{value!r} is not a whole number"
        if text.startswith("could not convert string to float"):
            return f"{text.partition(': ')[2]} is not a number"
        return text.rstrip(".")

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        """The known values, or files or folders for the shell to find."""
        kind = PATH_PLACEHOLDERS.get(self.setting.meta or "") or PATH_SETTINGS.get(self.setting.name)
        if kind:
            return [completion(incomplete, kind)]
        if self.setting.name == "worker_class":
            return WorkerClassType().shell_complete(ctx, param, incomplete)
        return starting_with(incomplete, self.choices)


class SettingOption(click.Option):
    """The option of one Gunicorn setting; its help is made only for one that is shown."""

    def __init__(self, setting: Any, *, is_shown: bool = True) -> None:
        self.setting = setting
        flags = spellings(setting)
        shape: dict[str, Any] = {"type": SettingType(setting), "metavar": placeholder(setting)}
        if setting.name == "worker_class":
            shape["type"] = WorkerClassType()
        if setting.action in WITHOUT_VALUE:
            shape = {"is_flag": True}
        elif setting.action == "append":
            shape["multiple"] = True
        elif setting.nargs == "?":
            shape |= {"is_flag": False, "flag_value": setting.const}
        super().__init__(
            [setting.name, *flags], envvar=variable(flags), help=help_text(setting) if is_shown else None, **shape
        )

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name the variable, not the flag, when it is the variable that holds the bad value."""
        if ctx is not None and ctx.get_parameter_source(str(self.name)) is ParameterSource.ENVIRONMENT:
            return f"the variable {self.envvar}"
        return super().get_error_hint(ctx)


def gunicorn_options() -> list[SettingOption]:
    """One option a setting, section by section: ours, then Gunicorn's in its own order."""
    return [SettingOption(setting()) for setting in _checked_settings()]


def options_for(args: Sequence[str], variables: Collection[str]) -> list[SettingOption] | None:
    """Those of :func:`gunicorn_options` that a command line or a variable names, in the same order.

    To make all takes longer than to import Click. ``None`` when all are needed: for help, for an unknown flag, for
    several flags in one word.
    """
    settings = {setting: spellings(setting) for setting in _checked_settings()}
    by_flag = {flag: setting for setting, flags in settings.items() for flag in flags}
    # Most starts have no such variable, and to spell all of them takes as long as to read the command line.
    prefixed = any(name.startswith(PREFIX) for name in variables)
    named = set()
    for arg in args:
        if arg in {"-", "--"} or not arg.startswith("-"):
            continue
        setting = by_flag.get(arg.partition("=")[0])
        if setting is None and not arg.startswith("--"):
            # a value stands in the same word, as in -w4
            setting = by_flag.get(arg[:2])
            if setting is not None and setting.action in WITHOUT_VALUE:
                return None
        if setting is None:
            return None
        named.add(setting)
    return [
        SettingOption(setting(), is_shown=False)
        for setting, flags in settings.items()
        if setting in named or (prefixed and variable(flags) in variables)
    ]


def _checked_settings() -> list[Any]:
    _check_web_concurrency(os.environ.get("WEB_CONCURRENCY", "1"))
    return settings_with_flags()


def _check_web_concurrency(value: str) -> None:
    """Refuse a value with which Gunicorn (25.3 to 27.0) cannot be imported."""
    try:
        int(value)
    except ValueError:
        raise click.UsageError(
            f"Invalid value for the variable WEB_CONCURRENCY: {value!r} is not a whole number. Correct or unset it"
        ) from None


def overrides(ctx: click.Context) -> dict[str, object]:
    """The values that a flag or a variable gave, by setting; defaults are left out."""
    given = {
        str(option.name): override(option.setting, ctx.params[str(option.name)])
        for option in ctx.command.get_params(ctx)
        if isinstance(option, SettingOption) and ctx.get_parameter_source(str(option.name)) in _GIVEN
    }
    return {name: value for name, value in given.items() if value is not None}


def placeholder(setting: Any) -> str:
    """The placeholder of the value in help: the choices if they are few, else Gunicorn's own."""
    choices = CHOICES.get(setting.name, ())
    if setting.name == "worker_class":
        return "TYPE"
    if choices and len(choices) <= 5:  # noqa: PLR2004 - more do not fit a line
        return f"[{'|'.join(choices)}]"
    return setting.meta or ("DIR" if setting.name == "chdir" else "VALUE")


def help_text(setting: Any) -> str:
    """Gunicorn's first sentence on the setting, without its markup, and the default."""
    paragraph = " ".join(setting.desc.strip().partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[^.][.])\s+(?=[A-Z])", plain(paragraph))[0].rstrip(".")
    if setting.name == "worker_class":
        sentence = (
            "The worker type: sync, gthread, gevent, eventlet, asgi, uvicorn, or the dotted path of a worker class"
        )
    default = default_text(setting)
    return f"{sentence}.  [default: {default}]" if default else f"{sentence}."


def default_text(setting: Any) -> str:
    """The default as one would type it; empty for flags, computed defaults and settings without one."""
    described = getattr(setting, "default_doc", "").strip()
    if described.endswith("()``"):
        return ""
    if described and "\n" not in described:
        return plain(described).strip("'")
    default = setting.default
    if default in (None, "", [], ()) or isinstance(default, bool):
        return ""
    if isinstance(default, list | tuple):
        return ",".join(f"{item:.15g}" if isinstance(item, float) else str(item) for item in default)
    if isinstance(default, int):
        return oct(default) if setting.type is not None and setting.type.__name__ == "auto_int" else str(int(default))
    return str(default)


def plain(text: str) -> str:
    """Text without reStructuredText's roles, quotes and emphasis."""
    text = re.sub(r":\w+:`([^`<]+?)\s*(<[^>]*>)?`", r"\1", text)
    return re.sub(r"(``|(?<!\w)\*|\*(?!\w))", "", text)
