"""The entry point: the group of commands, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from promgun import __version__
from promgun.errors import AppLoadError, ExitCode, PromgunError
from promgun.system.imports import collection_waits
from promgun.system.secrets import mask_passwords

PROGRAM = "promgun"
COMPLETE_VARIABLE = "_PROMGUN_COMPLETE"
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class LazyGroup(click.Group):
    """A group that imports a command's module when it is named: ``lazy`` maps names to ``module:attribute``."""

    def __init__(self, *args: Any, lazy: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"no_args_is_help": False})
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - Click's
        """Give the names, in the order of the table."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - Click's
        """Load the command of that name."""
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name].partition(":")
        with collection_waits():
            command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - the table above is ours
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without arguments show the help and exit with 2, on any Click (8.1 exits with 0)."""
        if not args and not ctx.resilient_parsing:
            from promgun.cli.echo import say_lines  # noqa: PLC0415 - a server says nothing at its start

            say_lines(ctx.get_help())
            ctx.exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one suggest the nearest."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches  # noqa: PLC0415 - for a mistake only

            near = get_close_matches(name, self._lazy, n=1)
            guess = f"run {name}" if ":" in name else "".join(near)
            meant = f" Did you mean '{ctx.command_path} {guess}'?" if guess else ""
            ctx.fail(f"there is no command {name!r}.{meant}")
        return super().resolve_command(ctx, args)


class PromgunGroup(LazyGroup):
    """The top of the tree, and the error boundary of the program."""

    def main(  # type: ignore[override] # the program's name and the variable are fixed here
        self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Run a command line and exit: with 0, or with one line on standard error and the error's code."""
        extra = {"prog_name": PROGRAM, "complete_var": COMPLETE_VARIABLE} | extra
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        if COMPLETE_VARIABLE in os.environ:
            from promgun.cli.shells import register  # noqa: PLC0415 - for a TAB only

            register()
        try:
            code = super().main(args, standalone_mode=False, **extra)
        except PromgunError as error:
            _fail(error)
        except click.ClickException as error:
            _report(_usage_line(error))
            sys.exit(error.exit_code)
        except click.Abort:
            _report("interrupted")
            sys.exit(ExitCode.INTERRUPTED)
        # Without standalone mode Click gives the code of ctx.exit() back; the commands themselves give None.
        sys.exit(code or 0)


def _fail(error: PromgunError) -> NoReturn:
    if isinstance(error, AppLoadError) and error.traceback:
        from promgun.cli.echo import say_lines  # noqa: PLC0415 - a server says nothing at its start

        say_lines(error.traceback.rstrip("\n"))
    _report(f"error: {error}")
    sys.exit(error.exit_code)


def _report(line: str) -> None:
    from promgun.cli.echo import say  # noqa: PLC0415 - a server says nothing at its start

    say(f"{PROGRAM}: {mask_passwords(line)}")


def _usage_line(error: click.ClickException) -> str:
    # Click spreads the choices of a missing argument over several lines.
    message = " ".join(error.format_message().split())
    message += "" if message.endswith((".", "?")) else "."
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message += f" See: {error.ctx.command_path} --help"
    return f"error: {message}"


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - Click's callback
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version  # noqa: PLC0415 - for --version only

    from promgun.cli.echo import echo  # noqa: PLC0415 - same

    parts = [f"{name} {version(name)}" for name in ("gunicorn", "prometheus-client")]
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    echo(f"{PROGRAM} {__version__} ({', '.join(parts)}, {python})\n")
    ctx.exit()


@click.group(
    PROGRAM,
    cls=PromgunGroup,
    context_settings=CONTEXT,
    lazy={
        "run": "promgun.cli.run:run",
        "ps": "promgun.cli.ps:ps",
        "metrics": "promgun.cli.metrics:metrics",
        "export": "promgun.cli.export:export",
        "completion": "promgun.cli.completion:completion",
    },
    epilog="""\b
    Example:
      promgun run app:wsgi          serve the object "wsgi" of app.py, measured
      promgun metrics dump          see its metrics
    """,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the versions and exit.",
)
def main() -> None:
    """Run a Python web application under Gunicorn and show it to Prometheus."""
