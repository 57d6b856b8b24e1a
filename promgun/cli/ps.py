"""``promgun ps``."""

from __future__ import annotations

import click

from promgun.exposition.instances import FORMATS, render_runs
from promgun.exposition.terminal import Terminal


@click.command(
    short_help="List the running instances.",
    epilog="""\b
    Examples:
      promgun ps
      promgun ps --format json
    """,
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print them."
)
def ps(form: str) -> None:
    """List the running instances: name, pid, application, worker type, addresses, metrics addresses, uptime."""
    from promgun.runs import live_runs  # noqa: PLC0415 - not needed for --help

    runs = live_runs()
    if not runs:
        click.echo("no running instances", err=True)
    if runs or form == "json":
        click.echo(render_runs(runs, form, Terminal.of()), nl=False)
