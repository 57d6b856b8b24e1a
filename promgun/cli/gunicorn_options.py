"""The options of ``promgun run``: generated from the settings of the installed Gunicorn, to which ours are added."""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from promgun.cli.types import ParamType, WorkerClassType, completion, starting_with

if TYPE_CHECKING:
    from promgun.cli.types import Items

PREFIX = "PROMGUN_"
WORKER_FLAGS = ("--worker-type", "-k", "--worker-class")
_WITHOUT_VALUE = frozenset({"store_true", "store_const"})
#: Settings for which Gunicorn's own validator accepts any text: a wrong value fails late, or is silently ignored.
CHECKED_HERE = frozenset({"loglevel", "protocol", "syslog_facility"})
_GIVEN = frozenset({ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT})


class SettingType(ParamType):
    """A value that the setting's own ``type`` and ``validator`` accept; what they refuse is a usage error."""

    def __init__(self, setting: Any) -> None:
        self.setting = setting
        self.name = str(setting.name)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that the setting is known to take, empty if any text may be one."""
        return _choices(self.setting)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Give the value for ``Config.set``, after the setting has accepted it."""
        from gunicorn.errors import ConfigError  # noqa: PLC0415 - Gunicorn is there once a setting is

        try:
            return self._try(value)
        except (ValueError, TypeError, ConfigError, OSError) as error:
            return self.fail(self._reason(value, error), param, ctx)

    def _try(self, value: Any) -> Any:
        setting = self.setting
        if setting.type is not None:
            value = setting.type(value)
        if setting.name in CHECKED_HERE and str(value).lower() not in self.choices:
            raise ValueError(value)
        # A validator may warn (ssl_version, reload_extra_files); it will do so again where the value is used.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            setting.validator([value] if setting.action == "append" else value)
        return value

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
        from promgun.cli.choices import PATH_PLACEHOLDERS, PATH_SETTINGS  # noqa: PLC0415 - for a TAB only

        kind = PATH_PLACEHOLDERS.get(self.setting.meta or "") or PATH_SETTINGS.get(self.setting.name)
        if kind:
            return [completion(incomplete, kind)]
        if self.setting.name == "worker_class":
            return WorkerClassType().shell_complete(ctx, param, incomplete)
        return starting_with(incomplete, self.choices)


class SettingOption(click.Option):
    """The option of one Gunicorn setting; its help is made when it is shown: a TAB shows few."""

    def __init__(self, setting: Any, *, is_shown: bool = True) -> None:
        self.setting = setting
        self._is_shown = is_shown
        flags = spellings(setting)
        shape: dict[str, Any] = {"type": WorkerClassType() if setting.name == "worker_class" else SettingType(setting)}
        if is_shown:
            shape["metavar"] = placeholder(setting)
        if setting.action in _WITHOUT_VALUE:
            shape = {"is_flag": True}
        elif setting.action == "append":
            shape["multiple"] = True
        elif setting.nargs == "?":
            shape |= {"is_flag": False, "flag_value": setting.const}
        super().__init__([setting.name, *flags], envvar=variable(flags), **shape)

    def _shown(self) -> str | None:
        return help_text(self.setting) if self._is_shown else None

    #: What Click shows of it. Click sets what it was given, which is nothing.
    help = property(_shown, lambda _self, _given: None)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name the variable, not the flag, when it is the variable that holds the bad value."""
        if ctx is not None and ctx.get_parameter_source(str(self.name)) is ParameterSource.ENVIRONMENT:
            return f"the variable {self.envvar}"
        return super().get_error_hint(ctx)

    def override(self, value: Any) -> object:
        """Turn what Click gives into what ``Config.set`` takes; ``None`` when the setting is to be left alone.

        A variable can say no to a flag that has no opposite (``PROMGUN_NO_SENDFILE=0``): that is the setting's default,
        if it has one.
        """
        if self.setting.action == "store_const":
            return self.setting.const if value else self.setting.default
        return list(value) if self.multiple else value


def gunicorn_options() -> list[SettingOption]:
    """One option a setting, section by section: ours, then Gunicorn's in its own order."""
    settings = _settings_with_flags()
    return [SettingOption(setting()) for setting in _by_section(settings, settings)]


def options_for(args: Sequence[str], variables: Collection[str]) -> list[SettingOption] | None:
    """Those of :func:`gunicorn_options` that a command line or a variable names, in the same order.

    To make all takes longer than to import Click. ``None`` when all are needed: for help, for an unknown flag, for
    several flags in one word.
    """
    settings = _settings_with_flags()
    by_flag = {flag: setting for setting in settings for flag in spellings(setting)}
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
            if setting is not None and setting.action in _WITHOUT_VALUE:
                return None
        if setting is None:
            return None
        named.add(setting)
    if prefixed:
        named |= {setting for setting in settings if variable(spellings(setting)) in variables}
    return [SettingOption(setting(), is_shown=False) for setting in _by_section(named, settings)]


def _settings_with_flags() -> list[Any]:
    """Return the classes of the settings that have flags, ours among Gunicorn's."""
    _check_web_concurrency(os.environ.get("WEB_CONCURRENCY", "1"))
    from gunicorn.config import KNOWN_SETTINGS  # noqa: PLC0415 - 60 ms that only ``run`` needs

    import promgun.config.gunicorn_settings  # noqa: F401, PLC0415 - same; importing it adds our settings to Gunicorn's

    return [setting for setting in KNOWN_SETTINGS if setting.cli]


def _by_section(chosen: Collection[Any], settings: Sequence[Any]) -> list[Any]:
    """Return the chosen ones of all settings section by section: ours, then Gunicorn's in its own order."""
    from promgun.config.gunicorn_settings import SECTION  # noqa: PLC0415 - loaded with the settings

    sections = list(dict.fromkeys([SECTION, *(setting.section for setting in settings)]))
    return sorted(chosen, key=lambda setting: (sections.index(setting.section), setting.order))


def _choices(setting: Any) -> tuple[str, ...]:
    from promgun.cli.choices import CHOICES  # noqa: PLC0415 - for help, a TAB and few values only

    return CHOICES.get(setting.name, ())


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
        str(option.name): option.override(ctx.params[str(option.name)])
        for option in ctx.command.get_params(ctx)
        if isinstance(option, SettingOption) and ctx.get_parameter_source(str(option.name)) in _GIVEN
    }
    return {name: value for name, value in given.items() if value is not None}


def spellings(setting: Any) -> tuple[str, ...]:
    """The flags of a setting; one with an underscore (``--limit-request-field_size``) also has a hyphenated form."""
    if setting.name == "worker_class":
        return WORKER_FLAGS
    flags = tuple(setting.cli)
    if "_" not in " ".join(flags):
        return flags
    return tuple(dict.fromkeys([*(flag.replace("_", "-") for flag in flags), *flags]))


def variable(flags: tuple[str, ...]) -> str:
    """The environment variable of an option: its first long name, as ``PROMGUN_WORKER_TYPE`` for ``--worker-type``."""
    long = next(flag for flag in flags if flag.startswith("--"))
    return PREFIX + long.removeprefix("--").replace("-", "_").replace(".", "_").upper()


def placeholder(setting: Any) -> str:
    """The placeholder of the value in help: the choices if they are few, else Gunicorn's own."""
    choices = _choices(setting)
    if setting.name == "worker_class":
        return "TYPE"
    if choices and len(choices) <= 5:  # noqa: PLR2004 - more do not fit a line
        return f"[{'|'.join(choices)}]"
    return setting.meta or ("DIR" if setting.name == "chdir" else "VALUE")


def help_text(setting: Any) -> str:
    """Gunicorn's first sentence on the setting, without its markup, and the default."""
    paragraph = " ".join(setting.desc.strip().partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[^.][.])\s+(?=[A-Z])", plain(paragraph), maxsplit=1)[0].rstrip(".")
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
    if "`" not in text and "*" not in text:
        return text
    text = re.sub(r":\w+:`([^`<]+?)\s*(<[^>]*>)?`", r"\1", text)
    return re.sub(r"(``|(?<!\w)\*|\*(?!\w))", "", text)
