"""``promgun export scrape``: how Prometheus finds the servers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from promgun.export.emitter import Commented, Node, to_yaml
from promgun.export.options import PART, option
from promgun.export.protection import ScrapeCredentials
from promgun.export.rules import JOB
from promgun.export.text import host_port, labels, seconds, window
from promgun.metrics.defaults import METRICS_ADDRESS

HEAD = """\
For prometheus.yml, made by: promgun export scrape
Test the file with: promtool check config prometheus.yml"""
TIMEOUT = 10.0
FILES = """\
One file or many, each made by: promgun export scrape --file-sd --target HOST:PORT ...
Prometheus reads them again when they change."""
PUSHED = """\
What short-lived servers pushed at their end (promgun run --push-gateway URL): the labels that came with it stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeOptions:
    """What is scraped: ``targets``, as this ``job``, with these ``labels``.

    ``file_sd`` asks for a file of targets for service discovery, not for a job; with ``files`` the job reads its
    targets from such files. ``rules`` names a rule file, ``credentials`` are for the targets, and ``push_gateway`` is
    scraped by a job of its own.
    """

    job: str = option(JOB, "The name of the job.", "NAME")
    targets: tuple[str, ...] = option(
        (METRICS_ADDRESS,), "The address at which Prometheus reaches a metrics endpoint.", "HOST:PORT", "--target"
    )
    labels: tuple[str, ...] = option((), "A label for the targets, e.g. env=production.", "NAME=VALUE", "--label")
    interval: str = option("15s", "How often to scrape.", "DURATION")
    file_sd: bool = option(default=False, text="Print the targets as JSON, for a file that a job with --files reads.")
    files: str = option(
        "", "Let the job read its targets from such files, e.g. /etc/prometheus/promgun/*.json.", "GLOB"
    )
    rules: str = option("", "Name the file that 'promgun export rules' made.", "FILE")
    credentials: ScrapeCredentials = field(default_factory=ScrapeCredentials, metadata=PART)
    push_gateway: str = option("", "Scrape this Pushgateway too, as a job of its own.", "HOST:PORT")


def scrape(options: ScrapeOptions) -> str:
    """Return the job as YAML, or the targets as JSON; raises ``UsageError`` for what Prometheus would refuse."""
    targets: dict[str, Node] = {"targets": [host_port(target) for target in options.targets]}
    extra = labels(options.labels)
    if extra:
        targets["labels"] = extra
    if options.file_sd:
        return json.dumps([targets], indent=2, ensure_ascii=False) + "\n"
    jobs: list[Node] = [_job(options, targets)]
    if options.push_gateway:
        jobs.append(Commented(_pushed(options), PUSHED))
    rules: dict[str, Node] = {"rule_files": [options.rules]} if options.rules else {}
    return to_yaml(Commented(rules | {"scrape_configs": jobs}, HEAD))


def _job(options: ScrapeOptions, targets: Node) -> Node:
    found: dict[str, Node] = {"static_configs": [targets]}
    if options.files:
        found = {"file_sd_configs": [Commented({"files": [options.files]}, FILES)]}
    return {"job_name": options.job, **_pace(options), **options.credentials.fields(), **found}


def _pace(options: ScrapeOptions) -> dict[str, Node]:
    interval = window(options.interval)
    # Prometheus refuses a timeout above the interval.
    short: dict[str, Node] = {"scrape_timeout": interval} if seconds(interval) < TIMEOUT else {}
    return {"scrape_interval": interval, **short}


def _pushed(options: ScrapeOptions) -> Node:
    targets = {"targets": [host_port(options.push_gateway)]}
    return {"job_name": "pushgateway", **_pace(options), "honor_labels": True, "static_configs": [targets]}
