"""Families of single workers: a series a slot of the store, which is the label ``worker_id``."""

from __future__ import annotations

from promgun.metrics.label_values import CpuMode
from promgun.metrics.late_label_values import Generation, SwitchKind, WorkerState
from promgun.metrics.spec import CounterFamily, GaugeFamily, MetricSpec

WORKER_REQUESTS: CounterFamily[tuple[str]] = CounterFamily(
    name="gunicorn_worker_requests_total",
    labels=("worker_id",),
    group="workers",
    help="Requests answered.",
)
WORKER_REQUESTS_IN_PROGRESS: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_worker_requests_in_progress",
    labels=("worker_id",),
    group="workers",
    help="Requests being served now.",
)
WORKER_BUSY_SECONDS: CounterFamily[tuple[str]] = CounterFamily(
    name="gunicorn_worker_busy_seconds_total",
    labels=("worker_id",),
    group="workers",
    help="Seconds spent in requests, in running ones up to the scrape; those of requests served at once add up.",
)
WORKER_CAPACITY: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_worker_capacity",
    labels=("worker_id",),
    group="workers",
    help="Requests that can be served at once: 1, threads, or connections. Absent where there is no limit.",
)
WORKER_OLDEST_REQUEST_SECONDS: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_worker_oldest_request_seconds",
    labels=("worker_id",),
    group="workers",
    help="Age of the oldest running request, 0 when idle.",
)
WORKER_STATE: GaugeFamily[tuple[str, WorkerState]] = GaugeFamily(
    name="gunicorn_worker_state",
    labels=(
        "worker_id",
        "state",
    ),
    group="workers",
    closed={"state": tuple(WorkerState)},
    help="1 for the state that the worker is in, 0 for the others.",
)
WORKER_HEARTBEAT_AGE_SECONDS: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_worker_heartbeat_age_seconds",
    labels=("worker_id",),
    group="workers",
    help="Time since the worker's last heartbeat.",
)
WORKER_UPTIME_SECONDS: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_worker_uptime_seconds",
    labels=("worker_id",),
    group="workers",
    help="Time since the worker was started.",
)
WORKER_REQUESTS_LEFT: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_worker_requests_left",
    labels=("worker_id",),
    group="workers",
    help="Requests until --max-requests recycles it; absent without the option.",
)
WORKER_RESIDENT_MEMORY_BYTES: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_worker_resident_memory_bytes",
    labels=("worker_id",),
    group="workers",
    help="Resident memory of the process.",
)
WORKER_UNIQUE_MEMORY_BYTES: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_worker_unique_memory_bytes",
    labels=("worker_id",),
    group="workers",
    help="Memory that no other process shares (USS), read every --metrics-unique-memory seconds; absent before.",
)
WORKER_CPU_SECONDS: CounterFamily[tuple[str, CpuMode]] = CounterFamily(
    name="gunicorn_worker_cpu_seconds_total",
    labels=(
        "worker_id",
        "mode",
    ),
    group="workers",
    closed={"mode": tuple(CpuMode)},
    help="CPU time of the process.",
)
WORKER_CPU_WAIT_SECONDS: CounterFamily[tuple[str]] = CounterFamily(
    name="gunicorn_worker_cpu_wait_seconds_total",
    labels=("worker_id",),
    group="workers",
    help="Time that the worker was ready to run but had no CPU (Linux).",
)
WORKER_LOOP_LAG_SECONDS: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_worker_loop_lag_seconds",
    labels=("worker_id",),
    group="workers",
    help=(
        "The most that an event loop, or the hub of gevent or eventlet, was late, or is: of this window of 15 s and of "
        "the one before. Absent where a class has neither."
    ),
)
WORKER_LOOP_LATE_SECONDS: CounterFamily[tuple[str]] = CounterFamily(
    name="gunicorn_worker_loop_late_seconds_total",
    labels=("worker_id",),
    group="workers",
    help="Time by which an event loop, or a hub, was late with what was due, less what is below 5 ms.",
)
WORKER_OPEN_FDS: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_worker_open_fds",
    labels=("worker_id",),
    group="workers",
    help="Open file descriptors of the process.",
)
WORKER_THREADS: GaugeFamily[tuple[str]] = GaugeFamily(
    name="gunicorn_worker_threads",
    labels=("worker_id",),
    group="workers",
    help="Threads of the process.",
)
WORKER_CONTEXT_SWITCHES: CounterFamily[tuple[str, SwitchKind]] = CounterFamily(
    name="gunicorn_worker_context_switches_total",
    labels=(
        "worker_id",
        "kind",
    ),
    group="workers",
    closed={"kind": tuple(SwitchKind)},
    help="Context switches of the process.",
)
WORKER_GC_COLLECTIONS: CounterFamily[tuple[str, Generation]] = CounterFamily(
    name="gunicorn_worker_gc_collections_total",
    labels=(
        "worker_id",
        "generation",
    ),
    group="workers",
    closed={"generation": tuple(Generation)},
    help="Garbage collections.",
)
WORKER_GC_PAUSE_SECONDS: CounterFamily[tuple[str]] = CounterFamily(
    name="gunicorn_worker_gc_pause_seconds_total",
    labels=("worker_id",),
    group="workers",
    help="Time spent in garbage collections.",
)

FAMILIES: tuple[MetricSpec, ...] = (
    WORKER_REQUESTS,
    WORKER_REQUESTS_IN_PROGRESS,
    WORKER_BUSY_SECONDS,
    WORKER_CAPACITY,
    WORKER_OLDEST_REQUEST_SECONDS,
    WORKER_STATE,
    WORKER_HEARTBEAT_AGE_SECONDS,
    WORKER_UPTIME_SECONDS,
    WORKER_REQUESTS_LEFT,
    WORKER_RESIDENT_MEMORY_BYTES,
    WORKER_UNIQUE_MEMORY_BYTES,
    WORKER_CPU_SECONDS,
    WORKER_CPU_WAIT_SECONDS,
    WORKER_LOOP_LAG_SECONDS,
    WORKER_LOOP_LATE_SECONDS,
    WORKER_OPEN_FDS,
    WORKER_THREADS,
    WORKER_CONTEXT_SWITCHES,
    WORKER_GC_COLLECTIONS,
    WORKER_GC_PAUSE_SECONDS,
)
