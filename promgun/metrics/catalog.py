"""The contract: every family with its type, labels and meaning, as data.

``promgun metrics list``, the docs page, the recorder, the reader and the tests all read this one table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: Upper bounds in seconds, as OpenTelemetry advises for http.server.request.duration (semantic conventions 1.44).
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
#: Upper bounds in bytes.
SIZE_BUCKETS = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0)

#: Methods of RFC 9110 (section 9) and PATCH (RFC 5789); anything else is :data:`OTHER_METHOD`.
METHODS = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
OTHER_METHOD = "_OTHER"
#: What the free labels of a folded label set read.
OVERFLOW = "_OVERFLOW"
#: Labels whose values the application or a client can choose; only these are folded.
FREE_LABELS = frozenset({"route", "error_type"})

MASTER_SIGNALS = ("hup", "int", "quit", "term", "ttin", "ttou", "usr1", "usr2", "winch")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
STORE_ERRORS = ("no_space", "corrupt", "permission")
EXIT_CAUSES = (
    "max_requests",
    "reload",
    "scale_in",
    "shutdown",
    "timeout",
    "graceful_timeout",
    "oom",
    "segfault",
    "killed",
    "other_signal",
    "boot_error",
    "app_load_error",
    "app_exit",
    "parent_lost",
)
WORKER_STATES = ("booting", "idle", "busy", "draining", "hung")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One family.

    ``labels`` are names in order; ``closed`` lists the values of labels whose set is known beforehand, so that their
    series are there from the start; ``buckets`` names the option that holds a histogram's bounds: duration or size.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    group: str
    closed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: str = ""

    @property
    def family(self) -> str:
        """The name without ``_total``, as prometheus_client and OpenMetrics name a counter's family."""
        return self.name.removesuffix("_total") if self.kind == "counter" else self.name


def _requests() -> tuple[MetricSpec, ...]:
    exchange = ("method", "route")
    return (
        MetricSpec(
            name="gunicorn_requests_total",
            kind="counter",
            labels=(*exchange, "status"),
            group="requests",
            help="Requests answered, by the application or by the worker for it.",
        ),
        MetricSpec(
            name="gunicorn_request_duration_seconds",
            kind="histogram",
            labels=(*exchange, "status"),
            group="requests",
            buckets="duration",
            help="From the parsed head to the last byte handed to the socket.",
        ),
        MetricSpec(
            name="gunicorn_request_size_bytes",
            kind="histogram",
            labels=exchange,
            group="requests",
            buckets="size",
            help="Size of the request body, as received.",
        ),
        MetricSpec(
            name="gunicorn_response_size_bytes",
            kind="histogram",
            labels=exchange,
            group="requests",
            buckets="size",
            help="Size of the response body, as sent.",
        ),
        MetricSpec(
            name="gunicorn_failed_requests_total",
            kind="counter",
            labels=(*exchange, "error_type"),
            group="requests",
            help="Requests that an exception left the application for, by its class.",
        ),
        MetricSpec(
            name="gunicorn_invalid_requests_total",
            kind="counter",
            labels=("error_type",),
            group="requests",
            help="Requests refused before the application was called.",
        ),
        MetricSpec(
            name="gunicorn_client_disconnects_total",
            kind="counter",
            labels=("phase",),
            group="requests",
            closed={"phase": ("request", "response")},
            help="Requests whose client left before the end.",
        ),
        MetricSpec(
            name="gunicorn_request_queue_seconds",
            kind="histogram",
            labels=("source",),
            group="requests",
            closed={"source": ("kernel", "proxy")},
            buckets="duration",
            help="Waiting before a worker took the request: in the accept queue, or since the proxy's header said.",
        ),
        MetricSpec(
            name="gunicorn_requests_lost_total",
            kind="counter",
            labels=("cause", "route"),
            group="requests",
            closed={"cause": EXIT_CAUSES},
            help="Requests that were running in a worker that died.",
        ),
    )


Closed = Mapping[str, tuple[str, ...]]


def _worker(name: str, kind: str, meaning: str, closed: Closed | None = None) -> MetricSpec:
    return MetricSpec(
        name=f"gunicorn_worker_{name}",
        kind=kind,
        help=meaning,
        labels=("worker_id", *(closed or {})),
        group="workers",
        closed=closed or {},
    )


def _workers() -> tuple[MetricSpec, ...]:
    return (
        _worker("requests_total", "counter", "Requests answered."),
        _worker("requests_in_progress", "gauge", "Requests being served now."),
        _worker("busy_seconds_total", "counter", "Request-seconds served, running requests included up to the scrape."),
        _worker("capacity", "gauge", "Requests that can be served at once: 1, threads, or connections."),
        _worker("oldest_request_seconds", "gauge", "Age of the oldest running request, 0 when idle."),
        _worker("state", "gauge", "Exactly one state is 1.", {"state": WORKER_STATES}),
        _worker("heartbeat_age_seconds", "gauge", "Time since the worker last said that it is alive."),
        _worker("uptime_seconds", "gauge", "Time since the worker was started."),
        _worker("requests_left", "gauge", "Requests until --max-requests recycles it; absent without the option."),
        _worker("resident_memory_bytes", "gauge", "Resident memory."),
        _worker(
            "unique_memory_bytes",
            "gauge",
            "Memory that no other process shares (unique set size), at most 10 seconds old.",
        ),
        _worker("cpu_seconds_total", "counter", "CPU time used.", {"mode": ("user", "system")}),
        _worker("cpu_wait_seconds_total", "counter", "Time ready to run but given no CPU (Linux)."),
        _worker("open_fds", "gauge", "Open file descriptors."),
        _worker("threads", "gauge", "Threads of the process."),
        _worker("context_switches_total", "counter", "Context switches.", {"kind": ("voluntary", "involuntary")}),
        _worker("gc_collections_total", "counter", "Garbage collections.", {"generation": ("0", "1", "2")}),
        _worker("gc_pause_seconds_total", "counter", "Time spent in garbage collections."),
    )


def _named(prefix: str, group: str) -> Callable[..., MetricSpec]:
    def family(
        name: str, kind: str, meaning: str, closed: Closed | None = None, open_labels: tuple[str, ...] = ()
    ) -> MetricSpec:
        return MetricSpec(
            name=f"{prefix}_{name}",
            kind=kind,
            help=meaning,
            labels=(*open_labels, *(closed or {})),
            group=group,
            closed=closed or {},
        )

    return family


_master_family = _named("gunicorn", "master")
_own_family = _named("promgun", "promgun")


def _master() -> tuple[MetricSpec, ...]:
    return (
        _master_family("up", "gauge", "1 while the master lives."),
        _master_family(
            "info",
            "gauge",
            "Versions and worker type; always 1.",
            open_labels=("gunicorn", "promgun", "python", "worker_type"),
        ),
        _master_family(
            "workers", "gauge", "Workers wanted, alive, and booted.", {"state": ("target", "alive", "booted")}
        ),
        _master_family("worker_spawns_total", "counter", "Workers started."),
        MetricSpec(
            name="gunicorn_worker_boot_seconds",
            kind="histogram",
            group="master",
            buckets="duration",
            help="From fork to ready to serve.",
        ),
        _master_family(
            "worker_exits_total", "counter", "Ends of workers, each once, by cause.", {"cause": EXIT_CAUSES}
        ),
        _master_family("master_signals_total", "counter", "Signals the master handled.", {"signal": MASTER_SIGNALS}),
        _master_family("reloads_total", "counter", "Reloads by SIGHUP.", {"result": ("ok", "failed")}),
        _master_family("last_reload_timestamp_seconds", "gauge", "When the last reload ended, in Unix time."),
        _master_family("log_messages_total", "counter", "Error-log records by level.", {"level": LOG_LEVELS}),
        _master_family("master_uptime_seconds", "gauge", "Time since the master was started."),
        _master_family("master_resident_memory_bytes", "gauge", "Resident memory of the master."),
        _master_family("master_cpu_seconds_total", "counter", "CPU time of the master.", {"mode": ("user", "system")}),
    )


def _listeners() -> tuple[MetricSpec, ...]:
    return (
        MetricSpec(
            name="gunicorn_listener_queue_connections",
            kind="gauge",
            labels=("listener",),
            group="listeners",
            help="Connections accepted by the kernel that wait for a worker now (Linux).",
        ),
        MetricSpec(
            name="gunicorn_listener_queue_limit",
            kind="gauge",
            labels=("listener",),
            group="listeners",
            help="Connections that the queue holds at most (Linux).",
        ),
        MetricSpec(
            name="gunicorn_listen_overflows_total",
            kind="counter",
            group="listeners",
            help="Connections that found a full queue, of the whole network namespace (Linux).",
        ),
        MetricSpec(
            name="gunicorn_listen_drops_total",
            kind="counter",
            group="listeners",
            help="Connections dropped before they were accepted, of the whole network namespace (Linux).",
        ),
    )


def _promgun() -> tuple[MetricSpec, ...]:
    return (
        _own_family("scrape_duration_seconds", "gauge", "Time to read and merge for this page."),
        _own_family("store_bytes", "gauge", "Size of the store."),
        _own_family("store_files", "gauge", "Files in the store."),
        _own_family("store_slots", "gauge", "Slots in the store: the most processes that were alive at once."),
        _own_family(
            "store_errors_total",
            "counter",
            "What could not be stored or read.",
            {"reason": STORE_ERRORS},
        ),
        _own_family("label_sets_folded_total", "counter", "Label sets beyond the cap.", open_labels=("family",)),
    )


CATALOG: tuple[MetricSpec, ...] = (*_requests(), *_workers(), *_master(), *_listeners(), *_promgun())
BY_NAME: Mapping[str, MetricSpec] = {spec.name: spec for spec in CATALOG}
