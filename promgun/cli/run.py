"""``promgun run``."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

import click

from promgun.cli.types import AppType
from promgun.system.imports import collection_waits, interrupts_wait

if TYPE_CHECKING:
    from promgun.cli.gunicorn_options import SettingOption

#: The key of the options that a command line names in ``Context.meta``; absent or ``None`` for all.
_OPTIONS = "promgun.cli.run.options"


class RunCommand(click.Command):
    """A command whose options are those of the installed Gunicorn, made when they are first asked for."""

    @cached_property
    def _setting_options(self) -> list[SettingOption]:
        with interrupts_wait(), collection_waits():
            from promgun.cli.gunicorn_options import gunicorn_options  # noqa: PLC0415 - imports gunicorn.config

            return gunicorn_options()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Give the generated options, then the declared parameters; while a command line is read, only those in it."""
        options = ctx.meta.get(_OPTIONS)
        return [*(self._setting_options if options is None else options), *super().get_params(ctx)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take ``-w=4`` as ``-w 4``, as Gunicorn's argparse does (Click would read the value ``=4``)."""
        words = [word for arg in args for word in ((arg[:2], arg[3:]) if _is_short_with_value(arg) else (arg,))]
        if not ctx.resilient_parsing:
            with interrupts_wait(), collection_waits():
                from promgun.cli.gunicorn_options import options_for  # noqa: PLC0415 - imports gunicorn.config

                ctx.meta[_OPTIONS] = options_for(words, os.environ)
        return super().parse_args(ctx, words)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their sections' names, promgun's own first."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                setting = getattr(param, "setting", None)
                sections.setdefault(setting.section if setting else "Help", []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def _is_short_with_value(arg: str) -> bool:
    return arg[2:3] == "=" and arg[0] == "-" and arg[1].isascii() and arg[1].isalpha()


@click.command(
    cls=RunCommand,
    short_help="Run an application under Gunicorn, measured.",
    epilog="""\b
    Examples:
      promgun run app:wsgi
      promgun run --worker-type gthread --threads 8 --workers 4 'app:create_app()'
      PROMGUN_WORKERS=4 promgun run --bind 0.0.0.0:8000 --metrics-bind 0.0.0.0:9164 app:wsgi
    """,
)
@click.argument("app", required=False, type=AppType(), envvar="PROMGUN_APP")
@click.pass_context
def run(ctx: click.Context, /, app: str | None, **_options: object) -> None:
    """Run APP under Gunicorn and show its metrics to Prometheus.

    APP is MODULE:NAME, MODULE:FACTORY() or MODULE (its "application"); it may stand in gunicorn.conf.py as wsgi_app
    instead.

    Every option of Gunicorn is taken. Each can also be set by an environment variable: PROMGUN_ and its first long
    name in capitals, as PROMGUN_WORKER_TYPE=gthread or PROMGUN_BIND="127.0.0.1:8000 [::1]:8000". A flag overrides a
    variable, a variable overrides GUNICORN_CMD_ARGS, and that overrides gunicorn.conf.py.
    """
    with collection_waits():
        from promgun.cli.gunicorn_options import overrides  # noqa: PLC0415 - imports gunicorn.config
        from promgun.config.run_settings import RunSettings  # noqa: PLC0415 - same
        from promgun.master.launch import launch  # noqa: PLC0415 - same

    launch(RunSettings(app=app, overrides=overrides(ctx)))
