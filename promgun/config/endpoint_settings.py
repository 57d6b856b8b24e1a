"""Options of the metrics endpoint, declared as Gunicorn settings: where it listens, how it is protected, what it shows.

See :mod:`promgun.config.gunicorn_settings`, which imports this module for the others.
"""

from __future__ import annotations

from typing import Any

from gunicorn import config

from promgun.config.metrics_addresses import parse_address
from promgun.errors import MetricsAddressError
from promgun.metrics.defaults import METRICS_ADDRESS, UNIQUE_MEMORY_SECONDS

SECTION = "Promgun"


def validate_metrics_bind(value: Any) -> list[str]:
    """Return a list of addresses, from a list or from one; raises ``ValueError`` for one that cannot be read."""
    texts: list[str] = config.validate_list_string(value)
    try:
        for text in texts:
            parse_address(text)
    except MetricsAddressError as error:
        raise ValueError(str(error)) from error
    return texts


def validate_collectors(value: Any) -> list[str]:
    """Return a list of collectors, from a list or from one; raises ``ValueError`` for one that names nothing."""
    texts: list[str] = config.validate_list_string(value)
    if not texts:
        return []
    from promgun.config.collectors import check_collector  # noqa: PLC0415 - most servers have none

    return [check_collector(text) for text in texts]


class MetricsBind(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Where the metrics endpoint listens."""

    name = "metrics_bind"
    section = SECTION
    cli = ("--metrics-bind",)
    meta = "ADDRESS"
    action = "append"
    validator = validate_metrics_bind
    default = (METRICS_ADDRESS,)
    desc = """\
        The address of the metrics endpoint: HOST:PORT, [IPV6]:PORT or unix:PATH.

        May be given more than once. Port 0 takes a free one; the address in use is logged at start and shown by
        ``promgun ps``.
        """


class MetricsServer(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Whether the metrics endpoint runs."""

    name = "metrics_server"
    section = SECTION
    cli = ("--no-metrics-server",)
    validator = config.validate_bool
    action = "store_const"
    const = False
    default = True
    desc = """\
        Collect metrics but serve them nowhere: no second listener, no metrics process.

        ``promgun metrics dump`` and ``promgun metrics serve`` still read them.
        """


class MetricsWebConfig(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """The web configuration file, which protects the endpoint."""

    name = "metrics_web_config"
    section = SECTION
    cli = ("--metrics-web-config",)
    meta = "FILE"
    validator = config.validate_string
    default = None
    desc = """\
        TLS, client certificates, passwords, headers and a rate limit of the metrics endpoint, on its TCP addresses.

        The file is exporter-toolkit's web configuration, in YAML; it is read again when it changes. Needs
        ``promgun[web]``.
        """


class MetricsCertfile(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """The certificate of the endpoint."""

    name = "metrics_certfile"
    section = SECTION
    cli = ("--metrics-certfile",)
    meta = "FILE"
    validator = config.validate_string
    default = None
    desc = """\
        Serve the metrics over TLS on TCP addresses, with this certificate (PEM, with its chain).

        It is read again when it changes, as is its key.
        """


class MetricsKeyfile(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """The key of the endpoint's certificate."""

    name = "metrics_keyfile"
    section = SECTION
    cli = ("--metrics-keyfile",)
    meta = "FILE"
    validator = config.validate_string
    default = None
    desc = """\
        The key of ``--metrics-certfile``, if it is not in the same file. The workers' user must be able to read it.
        """


class MetricsBearerTokenFile(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """The tokens with which the endpoint answers."""

    name = "metrics_bearer_token_file"
    section = SECTION
    cli = ("--metrics-bearer-token-file",)
    meta = "FILE"
    validator = config.validate_string
    default = None
    desc = """\
        Answer only requests with one of the tokens in this file, on TCP addresses; one token a line.

        ``/-/healthy`` and ``/-/ready`` need none. The file is read again when it changes.
        """


class MetricsAllowedHost(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Host names that requests to loopback addresses may have."""

    name = "metrics_allowed_host"
    section = SECTION
    cli = ("--metrics-allowed-host",)
    meta = "NAME"
    action = "append"
    validator = config.validate_list_string
    default = ()
    desc = """\
        A host name that requests to loopback addresses may have in ``Host``, for a proxy that passes the client's on.

        May be given more than once. On these addresses any other name except localhost is refused with 421, so that no
        web page can read the metrics through a name of its own that resolves to this machine (DNS rebinding).
        """


class MetricsShowPaths(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Whether the status page shows the paths of running requests."""

    name = "metrics_show_paths"
    section = SECTION
    cli = ("--metrics-show-paths",)
    validator = config.validate_bool
    action = "store_true"
    default = False
    desc = """\
        Show the paths of running requests on the status page; by default it shows only their methods and routes.

        A path may carry a secret, as in a link that resets a password. Query strings are never shown.
        """


class MetricsCollector(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """Collectors of the application's own."""

    name = "metrics_collector"
    section = SECTION
    cli = ("--metrics-collector",)
    meta = "MODULE:FACTORY"
    action = "append"
    validator = validate_collectors
    default = ()
    desc = """\
        A collector of the application's own: FACTORY, called without arguments, gives an object with ``collect()``.

        May be given more than once. All run in one process beside the metrics process, as the workers' user, for each
        page; the process is killed when they take longer than 5 seconds, and the page goes out without them.
        """


class MetricsUniqueMemory(config.Setting):  # type: ignore[misc] # gunicorn is untyped
    """How often the unique memory of each worker is read."""

    name = "metrics_unique_memory"
    section = SECTION
    cli = ("--metrics-unique-memory",)
    meta = "SECONDS"
    validator = config.validate_pos_int
    type = int
    default = UNIQUE_MEMORY_SECONDS
    desc = """\
        Read how much memory each worker shares with no other process once in this many seconds; 0 turns it off.

        The metrics process reads one worker at a time, between pages and only while somebody scrapes. The kernel walks
        through all pages of the worker for it, 25 to 31 ms for each GiB; a worker that maps memory meanwhile waits.
        """
