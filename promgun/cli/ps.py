"""``promgun ps``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from promgun.cli.echo import echo_page, say
from promgun.terminal.instances import FORMATS, render_runs
from promgun.terminal.output import Output
from promgun.terminal.requests import render_requests

if TYPE_CHECKING:
    from promgun.instances.entries import Run


@click.command(
    short_help="List the running instances.",
    epilog="""\b
    Examples:
      promgun ps
      promgun ps --format json
      promgun ps --requests
    """,
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print them."
)
@click.option("--requests", is_flag=True, help="List their workers instead, and what each is doing now.")
def ps(form: str, *, requests: bool) -> None:
    """List the running instances: name, pid, application, worker type, addresses, metrics addresses, uptime.

    With --requests a row is a running request: instance, slot, pid and state of its worker, its phase (reading,
    queued, application, writing), method, route, path, client, age; a worker without a request is a row too.
    """
    from promgun.instances.registry import instances, live_runs  # noqa: PLC0415 - not needed for --help
    from promgun.instances.runtime_directory import why_unreadable  # noqa: PLC0415 - same

    runs = instances() if requests else live_runs()
    if not runs:
        why = why_unreadable()
        say(f"no running instances{why and f' are known: {why}'}")
    if runs or form == "json":
        echo_page(_requests(runs, form) if requests else render_runs(runs, form, Output.of()), form)


def _requests(runs: tuple[Run, ...], form: str) -> str:
    from promgun.status.requests import workers_now  # noqa: PLC0415 - imports prometheus_client

    return render_requests(workers_now(runs), form, Output.of())
