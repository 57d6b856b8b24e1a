"""``promgun metrics dump``, ``list`` and ``serve``; ``metrics top`` is in ``top``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promgun.cli.credentials import with_credentials
from promgun.cli.echo import echo_page, say
from promgun.cli.instance_types import InstanceType, MetricsAddressType
from promgun.cli.main import LazyGroup
from promgun.config.metrics_addresses import Address
from promgun.errors import MetricsAddressError
from promgun.exposition import contract, formats
from promgun.metrics.defaults import METRICS_ADDRESS, UNIQUE_MEMORY_SECONDS
from promgun.terminal.output import Output

if TYPE_CHECKING:
    from promgun.instances.credentials import Credentials

_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.group(
    cls=LazyGroup,
    lazy={
        "top": "promgun.cli.top:top",
        "dump": "promgun.cli.metrics:dump",
        "list": "promgun.cli.metrics:list_contract",
        "serve": "promgun.cli.metrics:serve",
    },
    short_help="Watch, print, explain or serve the metrics.",
    epilog="""\b
    Example:
      promgun metrics dump --match 'gunicorn_requests*'
    """,
)
def metrics() -> None:
    """Watch, print, explain or serve the metrics."""


@click.command(
    short_help="Print the metrics of a running instance.",
    epilog="""\b
    Examples:
      promgun metrics dump
      promgun metrics dump --format table --match 'gunicorn_request*'
      promgun metrics dump --url http://127.0.0.1:9164/metrics --output page.prom
      promgun metrics dump --url https://web-1.example:9164 --ca-file ca.pem --user prometheus
    """,
)
@click.option(
    "--instance", type=InstanceType(), metavar="NAME", help="The instance of this name or pid, as in 'promgun ps'."
)
@click.option("--dir", "directory", type=_DIRECTORY, metavar="DIR", help="The store in this directory.")
@click.option(
    "--url", metavar="URL", help="The page that this address serves: http://…, https://…, HOST:PORT or unix:PATH."
)
@click.option(
    "--format", "form", type=click.Choice(formats.FORMATS), default="text", show_default=True, help="How to print them."
)
@click.option(
    "--match", multiple=True, metavar="GLOB", help="Only families and samples whose names match. May be repeated."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE, in one step, not to the screen.",
)
@with_credentials
def dump(
    *,
    instance: str | None,
    directory: Path | None,
    url: str | None,
    form: formats.Format,
    match: tuple[str, ...],
    output: Path | None,
    credentials: Credentials,
) -> None:
    """Print the page of metrics of the running instance, or of the one that an option names."""
    from promgun.instances.page_source import source_for  # noqa: PLC0415 - imports prometheus_client
    from promgun.system.atomic_file import write_atomically  # noqa: PLC0415 - not needed for --help

    families = source_for(instance, directory, url, credentials).families()
    page = formats.render(families, form, match, Output() if output else Output.of())
    if output is None or str(output) == "-":
        echo_page(page, form)
    else:
        write_atomically(output, page)


@click.command(
    "list",
    short_help="Print the table of metrics: names, types, labels, meaning.",
    epilog="""\b
    Examples:
      promgun metrics list
      promgun metrics list --format markdown
    """,
)
@click.option(
    "--format", "form", type=click.Choice(contract.FORMATS), default="table", show_default=True, help="How to print it."
)
def list_contract(form: str) -> None:
    """Print every metric that promgun exports: its family, type, labels and meaning."""
    from promgun.metrics.catalog import CATALOG  # noqa: PLC0415 - not needed for --help

    echo_page(contract.render_catalog(CATALOG, form, Output.of()), form)


@click.command(
    short_help="Serve a store from outside the server.",
    epilog="""\b
    Example:
      promgun run --no-metrics-server --metrics-dir /run/metrics app:wsgi
      promgun metrics serve --dir /run/metrics --bind 0.0.0.0:9164
    """,
)
@click.option(
    "--dir", "directory", type=_DIRECTORY, metavar="DIR", required=True, help="The store: what --metrics-dir names."
)
@click.option(
    "--bind",
    "addresses",
    multiple=True,
    type=MetricsAddressType(),
    default=(METRICS_ADDRESS,),
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen: HOST:PORT, [IPV6]:PORT or unix:PATH. May be repeated.",
)
@click.option("--web-config", metavar="FILE", help="TLS, passwords and more on TCP addresses: exporter-toolkit's file.")
@click.option("--certfile", metavar="FILE", help="Serve over TLS on TCP addresses, with this certificate (PEM).")
@click.option("--keyfile", metavar="FILE", help="Its key, if it is not in the same file.")
@click.option(
    "--bearer-token-file", metavar="FILE", help="Answer only requests with one of the tokens in this file; one a line."
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A host name that requests to loopback addresses may have. May be repeated.",
)
@click.option(
    "--unique-memory",
    type=click.IntRange(min=0),
    default=UNIQUE_MEMORY_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Read how much memory each worker shares with nobody once in SECONDS; 0 for never.",
)
def serve(directory: Path, addresses: tuple[Address, ...], unique_memory: int, **protection: Any) -> None:
    """Serve the metrics of a store, as a sidecar does, until it is stopped.

    The store need not exist yet: until it does, the page says gunicorn_up 0.
    """
    from promgun.config.listeners import bind_all, close_and_unlink, describe  # noqa: PLC0415 - not needed for --help
    from promgun.config.web_options import web_options  # noqa: PLC0415 - not needed for --help
    from promgun.endpoint.main import serve_store  # noqa: PLC0415 - imports asyncio
    from promgun.endpoint.security import load_security  # noqa: PLC0415 - same

    web = web_options(**protection, prefix="--")
    load_security(web)
    with ExitStack() as undo:
        try:
            sockets = tuple(bind_all(addresses).values())
        except MetricsAddressError as error:
            # The hint names the option of promgun run.
            raise MetricsAddressError(error.message, error.hint.replace("--metrics-bind", "--bind")) from error
        for listener in sockets:
            undo.callback(close_and_unlink, listener)
            say(f"serving the metrics of {directory} on {describe(listener)}")
        serve_store(directory, sockets, web=web, unique_memory=unique_memory)
