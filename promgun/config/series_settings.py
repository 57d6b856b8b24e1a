"""Options on how our series are shown, declared as Gunicorn settings.

See :mod:`promgun.config.gunicorn_settings`, which imports this module for the others.
"""

from __future__ import annotations

from typing import Any

from gunicorn import config

from promgun.config.endpoint_settings import SECTION


def validate_routes(value: Any) -> tuple[str, ...]:
    """Return patterns of routes; raises ``ValueError`` for one that cannot be used."""
    if value in (None, ()):
        return ()
    from promgun.routes.patterns import read_patterns  # noqa: PLC0415 - most servers have no pattern

    return read_patterns(value)


def validate_globs(value: Any) -> list[str]:
    """Return a list of globs, from a list or from one; raises ``ValueError`` for an empty one."""
    texts: list[str] = config.validate_list_string(value)
    if not texts:
        return []
    from promgun.config.series_options import check_globs  # noqa: PLC0415 - most servers have none

    return check_globs(texts)


def validate_labels(value: Any) -> list[str]:
    """Return a list of ``NAME=VALUE``, from a list or from one; raises ``ValueError`` for a name that is taken."""
    texts: list[str] = config.validate_list_string(value)
    if not texts:
        return []
    from promgun.config.series_options import check_labels  # noqa: PLC0415 - same

    return check_labels(texts)


class MetricsRoute(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Routes that promgun matches itself."""

    name = "metrics_route"
    section = SECTION
    cli = ("--metrics-route",)
    meta = "PATTERN"
    action = "append"
    validator = validate_routes
    default = ()
    desc = """\
        A route to count requests under that no framework names one for, e.g. ``/users/{id}`` or ``/files/{path:path}``.

        May be given more than once; the first that matches a path whole is its route. ``{id}`` is text without a slash,
        ``{id:int}``, ``{id:float}`` and ``{id:uuid}`` are what they say, ``{path:path}`` is anything. ``@FILE`` stands
        for a file with one pattern a line.
        """


class MetricsExcludeRoute(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Routes that get no series of their own."""

    name = "metrics_exclude_route"
    section = SECTION
    cli = ("--metrics-exclude-route",)
    meta = "GLOB"
    action = "append"
    validator = validate_globs
    default = ()
    desc = """\
        Routes without series of their own, e.g. ``/health*``: their requests count under ``route=""``.

        May be given more than once. A glob is compared with the whole label, upper and lower case apart; ``*`` is any
        text, slashes included. The requests still count in the worker's totals and in saturation.
        """


class MetricsGroupStatus(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Whether statuses are shown by class."""

    name = "metrics_group_status"
    section = SECTION
    cli = ("--metrics-group-status",)
    validator = config.validate_bool
    action = "store_true"
    default = False
    desc = """\
        Show the label ``status`` as a class, 2xx, 4xx and so on, which makes fewer series.
        """


class MetricsLabel(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Constant labels of all our series."""

    name = "metrics_label"
    section = SECTION
    cli = ("--metrics-label",)
    meta = "NAME=VALUE"
    action = "append"
    validator = validate_labels
    default = ()
    desc = """\
        A constant label on every series whose name begins with gunicorn_ or promgun_.

        May be given more than once; of two with one name the last counts. The application's own metrics do not get it.
        A name that promgun's metrics use, such as ``route``, is refused.
        """


class MetricsRequestCpu(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Whether the CPU time of requests is counted."""

    name = "metrics_request_cpu"
    section = SECTION
    cli = ("--no-metrics-request-cpu",)
    validator = config.validate_bool
    action = "store_const"
    const = False
    default = True
    desc = """\
        Do not count the CPU time of requests (``gunicorn_request_cpu_seconds_total``), on sync and gthread.

        It takes two system calls for each of about 100 requests a second in a worker.
        """
