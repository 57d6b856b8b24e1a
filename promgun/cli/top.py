"""``promgun metrics top``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from promgun.cli.credentials import with_credentials
from promgun.cli.instance_types import InstanceType

if TYPE_CHECKING:
    from promgun.instances.credentials import Credentials

_LEAST_INTERVAL = 0.2
_MOST_INTERVAL = 3600.0


def _number(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    # Click's range lets NaN through: it is neither too small nor too large.
    if math.isnan(value):
        raise click.BadParameter("nan is not a number of seconds")
    return value


@click.command(
    short_help="Watch a running instance, live.",
    epilog="""\b
    Examples:
      promgun metrics top
      promgun metrics top --instance shop --interval 0.5
      promgun metrics top --url http://10.0.0.7:9164/metrics
      promgun metrics top --once
    """,
)
@click.option(
    "--instance", type=InstanceType(), metavar="NAME", help="The instance of this name or pid, as in 'promgun ps'."
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The instance whose store is in this directory.",
)
@click.option(
    "--url",
    metavar="URL",
    help="The instance whose page this is: http://…, https://…, HOST:PORT or unix:PATH. A page carries no pids and "
    "no paths of running requests.",
)
@click.option(
    "--interval",
    type=click.FloatRange(_LEAST_INTERVAL, _MOST_INTERVAL),
    callback=_number,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two samples, 0.2 at least.",
)
@click.option("--once", is_flag=True, help="Print one frame, of two samples an interval apart, and exit.")
@with_credentials
def top(
    *,
    instance: str | None,
    directory: Path | None,
    url: str | None,
    interval: float,
    once: bool,
    credentials: Credentials,
) -> None:
    """Watch a running instance: requests, errors, latencies, saturation, workers and what they do, routes, exits.

    Keys: q quits, p pauses, s and r sort workers and routes by the next column, t chooses the tables, + and - change
    the interval, ? explains. Where standard
    output is no terminal, one frame is printed, as with --once. When the instance goes away, the view waits for it.
    """
    from promgun.status.source import snapshots_of  # noqa: PLC0415 - imports prometheus_client
    from promgun.terminal.top.live import Watch, can_draw, print_frame  # noqa: PLC0415 - imports rich

    source = snapshots_of(instance, directory, url, credentials)
    if once or not can_draw():
        print_frame(source, interval)
    else:
        Watch(source, interval).run()
