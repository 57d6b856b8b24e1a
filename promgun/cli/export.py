"""``promgun export``: grafana, rules, scrape, kubernetes, systemd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from promgun.cli.echo import echo
from promgun.cli.main import LazyGroup
from promgun.cli.types import AppType, WorkerClassType
from promgun.export.grafana import GrafanaOptions, grafana
from promgun.export.kubernetes import KubernetesOptions, kubernetes
from promgun.export.rules import RulesOptions, rules
from promgun.export.scrape import ScrapeOptions, scrape
from promgun.export.systemd import SystemdOptions, systemd

Options = TypeVar("Options")


@click.group(
    cls=LazyGroup,
    lazy={
        "grafana": "promgun.cli.export:export_grafana",
        "rules": "promgun.cli.export:export_rules",
        "scrape": "promgun.cli.export:export_scrape",
        "kubernetes": "promgun.cli.export:export_kubernetes",
        "systemd": "promgun.cli.export:export_systemd",
    },
    short_help="Print dashboard, alert rules, scrape job, Kubernetes objects or systemd unit.",
    epilog="""\b
    Example:
      promgun export scrape --rules promgun.rules.yml > prometheus.yml
      promgun export rules > promgun.rules.yml
      prometheus --config.file prometheus.yml
    """,
)
def export() -> None:
    """Print what goes beside a server: a dashboard, alert rules, a scrape job, Kubernetes objects, a systemd unit."""


def options_of(defaults: Any) -> list[click.Option]:
    """Make an option of each field of a dataclass that declares one (:mod:`promgun.export.options`)."""
    made = []
    for one in fields(defaults):
        value = getattr(defaults, one.name)
        if one.metadata.get("part"):
            made += options_of(value)
        elif one.metadata:
            flag = one.metadata["flag"] or f"--{one.name.replace('_', '-')}"
            made.append(_option(one.name, flag, value, one.metadata["help"], one.metadata["metavar"]))
    return made


def _option(name: str, flag: str, default: Any, text: str, metavar: str | None) -> click.Option:
    shape: dict[str, Any] = {"type": WorkerClassType() if name == "worker_type" else type(default)}
    if isinstance(default, bool):
        shape = {"is_flag": True}
    elif isinstance(default, tuple):
        shape = {"multiple": True, "type": str}
        text += " May be repeated."
    shown = bool(default) or (default == 0 and not isinstance(default, bool))
    return click.Option([flag, name], default=default, help=text, metavar=metavar, show_default=shown, **shape)


def build(defaults: Options, values: dict[str, Any]) -> Options:
    """Return the dataclass with ``values``; a value goes to the field of its name, in whichever part that is."""
    given: dict[str, Any] = {}
    for one in fields(defaults):  # type: ignore[arg-type] # a dataclass
        if one.metadata.get("part"):
            given[one.name] = build(getattr(defaults, one.name), values)
        elif one.name in values:
            given[one.name] = values[one.name]
    return replace(defaults, **given)  # type: ignore[type-var] # same


def _command(name: str, make: Callable[[Any], str], defaults: Any, about: str, example: str) -> click.Command:
    """Make a command that prints what ``make`` returns for its options."""

    def callback(*, output: Path | None, **values: Any) -> None:
        text = make(build(defaults, values))
        if output is None or str(output) == "-":
            echo(text)
            return
        from promgun.system.atomic_file import write_atomically  # noqa: PLC0415 - not needed for --help

        write_atomically(output, text)

    out = click.Option(
        ["--output"],
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write to FILE, in one step, not to the screen.",
    )
    server: list[click.Parameter] = []
    if any(one.name == "server" for one in fields(defaults)):
        server = [
            click.Argument(["app"], required=False, default="app:wsgi", type=AppType()),
            click.Argument(["arguments"], nargs=-1),
        ]
    return click.Command(
        name,
        params=[*server, *options_of(defaults), out],
        callback=callback,
        help=about,
        short_help=about.partition(". ")[0].rstrip(".") + ".",
        epilog=f"\b\nExamples:\n{example}",
    )


export_grafana = _command(
    "grafana",
    grafana,
    GrafanaOptions(),
    "Print a dashboard for Grafana 11 or newer: import it, or put it into a folder that Grafana provisions from.",
    """\
  promgun export grafana > promgun.json
  promgun export grafana --title Shop --uid shop --job shop --output dashboards/shop.json""",
)
export_rules = _command(
    "rules",
    rules,
    RulesOptions(),
    "Print recording and alert rules for Prometheus. Every threshold is an option.",
    """\
  promgun export rules > promgun.rules.yml
  promgun export rules --job shop --label team=web --slow-seconds 0.3 --error-share 0.01
  promgun export rules --operator --operator-label release=prometheus | kubectl apply -f -""",
)
export_scrape = _command(
    "scrape",
    scrape,
    ScrapeOptions(),
    "Print the scrape job for prometheus.yml, or the targets of many hosts.",
    """\
  promgun export scrape --target web-1:9164 --target web-2:9164
  promgun export scrape --files '/etc/prometheus/promgun/*.json'
  promgun export scrape --file-sd --target web-1:9164 --label env=production --output promgun/web.json""",
)
export_kubernetes = _command(
    "kubernetes",
    kubernetes,
    KubernetesOptions(),
    "Print Deployment, Service, PodMonitor and autoscaler of APP. What follows -- is for promgun run.",
    """\
  promgun export kubernetes --image registry.example/shop:3 shop:app
  promgun export kubernetes --worker-type gthread --threads 8 shop:app -- --max-requests 10000
  promgun export kubernetes --keda --saturation 0.6 --min 3 --max 30 shop:app""",
)
export_systemd = _command(
    "systemd",
    systemd,
    SystemdOptions(),
    "Print a unit for APP under systemd. What follows -- is for promgun run.",
    """\
  promgun export systemd --name shop --directory /srv/shop --program /srv/shop/venv/bin/promgun shop:app
  promgun export systemd --user shop --env DJANGO_SETTINGS_MODULE=shop.settings shop.wsgi -- --preload""",
)
