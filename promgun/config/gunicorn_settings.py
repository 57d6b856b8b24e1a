"""promgun's own options, declared as Gunicorn settings.

A subclass of ``gunicorn.config.Setting`` joins ``KNOWN_SETTINGS`` when its class body ends (Gunicorn's
``SettingMeta``), so ``gunicorn.conf.py``, ``GUNICORN_CMD_ARGS``, ``--print-config`` and SIGHUP know these names
without further code. Import this module before a ``Config`` is built.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from gunicorn import config

import promgun.config.series_settings  # noqa: F401 - its settings join Gunicorn's by being declared
from promgun.config.endpoint_settings import SECTION as SECTION  # noqa: PLC0414 - also the name by which others ask for it
from promgun.config.push_gateway import validate_push_gateway
from promgun.metrics.defaults import DURATION_BUCKETS, MAX_LABEL_SETS, SIZE_BUCKETS


def validate_buckets(value: Any) -> tuple[float, ...]:
    """Upper bounds of a histogram: numbers, or one string of them, strictly rising and finite.

    Raises ``ValueError`` for anything else; ``+Inf`` is always added by the histogram itself.
    """
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    bounds = tuple(float(bound) for bound in value)
    if not bounds or not all(math.isfinite(bound) for bound in bounds):
        raise ValueError("buckets are one or more finite numbers")
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError("buckets must rise from one to the next")
    return bounds


def validate_positive(value: Any) -> int:
    """Return a whole number of at least 1; raises ``ValueError`` for anything else."""
    number = int(config.validate_pos_int(value))
    if number < 1:
        raise ValueError("must be at least 1")
    return number


class MetricsDir(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """The directory of the store."""

    name = "metrics_dir"
    section = SECTION
    cli = ("--metrics-dir",)
    meta = "DIR"
    validator = config.validate_string
    default = None
    desc = """\
        The directory of the metrics store, in place of a private one that is removed at the end.

        It is created if missing and stays at the end. A later run may use it again, but no two at the same time.
        """


class MetricsDurationBuckets(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Bounds of the duration histograms."""

    name = "metrics_duration_buckets"
    section = SECTION
    cli = ("--metrics-duration-buckets",)
    meta = "SECONDS,..."
    validator = validate_buckets
    default = DURATION_BUCKETS
    desc = """\
        Upper bounds, in seconds, of the buckets of every duration histogram.
        """


class MetricsSizeBuckets(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Bounds of the size histograms."""

    name = "metrics_size_buckets"
    section = SECTION
    cli = ("--metrics-size-buckets",)
    meta = "BYTES,..."
    validator = validate_buckets
    default = SIZE_BUCKETS
    desc = """\
        Upper bounds, in bytes, of the buckets of every size histogram.
        """


def validate_ratio(value: Any) -> float:
    """Return a number from 0 to 1; raises ``ValueError`` for anything else."""
    ratio = float(value)
    if not 0.0 <= ratio <= 1.0:
        raise ValueError("must be from 0 to 1")
    return ratio


class StackDumpAt(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """When a worker without a heartbeat is asked to write its stacks to the log."""

    name = "stack_dump_at"
    section = SECTION
    cli = ("--stack-dump-at",)
    meta = "RATIO"
    validator = validate_ratio
    type = float
    default = 0.9
    desc = """\
        The share of --timeout after which a silent worker writes its stacks to the error log, once; 0 turns it off.
        """


class CgroupDir(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """The control group whose OOM kills are counted."""

    name = "cgroup_dir"
    section = SECTION
    cli = ("--cgroup-dir",)
    meta = "DIR"
    validator = config.validate_string
    default = None
    desc = """\
        The control group whose count of OOM kills tells whether a killed worker had run out of memory.

        By default the one that the server runs in, if any.
        """


class ConfigCache(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Whether a worker that has booted caches its settings."""

    name = "config_cache"
    section = SECTION
    cli = ("--no-config-cache",)
    validator = config.validate_bool
    action = "store_const"
    const = False
    default = True
    desc = """\
        Have workers look every setting up anew, two dozen times a request, as under plain Gunicorn.

        By default a worker that has booted caches its settings, which saves 4 to 17 % of a small request's CPU. Use it
        if you suspect that: a serving worker does not see a change of its settings that bypasses ``cfg.set``.
        """


class ServerShortcuts(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Whether functions of the server that do for each request what has the same result each time are replaced."""

    name = "server_shortcuts"
    section = SECTION
    cli = ("--no-server-shortcuts",)
    validator = config.validate_bool
    action = "store_const"
    const = False
    default = True
    desc = """\
        Leave the functions of Gunicorn, and of uvicorn, as they are.

        By default a worker that has booted formats the date of responses once a second, waits for a connection by one
        system call in place of four, and so on, which together with the cached settings saves more CPU than measuring
        costs. Use it if you suspect one of these, or have a tool that replaces such functions while it serves.
        """


class MetricsMaxLabelSets(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """The most label sets of a family."""

    name = "metrics_max_label_sets"
    section = SECTION
    cli = ("--metrics-max-label-sets",)
    meta = "INT"
    validator = validate_positive
    type = int
    default = MAX_LABEL_SETS
    desc = """\
        The most label sets of one family; further ones are folded into one named _OVERFLOW, and counted.
        """


class PushGateway(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """The Pushgateway that gets the final page."""

    name = "push_gateway"
    section = SECTION
    cli = ("--push-gateway",)
    meta = "URL"
    validator = validate_push_gateway
    default = None
    desc = """\
        Push the final page of metrics to this Pushgateway at exit: for servers that end before Prometheus could scrape
        them.

        The labels are job and instance, the name of this host. The exit waits for it 3 seconds at most. The URL may
        name a user, whose password belongs in a file (--push-gateway-password-file).
        """


class PushGatewayPasswordFile(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """The file with the password of the Pushgateway's user."""

    name = "push_gateway_password_file"
    section = SECTION
    cli = ("--push-gateway-password-file",)
    meta = "FILE"
    validator = config.validate_string
    default = None
    desc = """\
        The file whose first line is the password of the user in --push-gateway; it is read when the page is pushed.
        """


class PushGatewayJob(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """The job of the page on the Pushgateway."""

    name = "push_gateway_job"
    section = SECTION
    cli = ("--push-gateway-job",)
    meta = "NAME"
    validator = config.validate_string
    default = None
    desc = """\
        The job under which --push-gateway pushes; by default the name of the process (--name).
        """
