"""Families of the master and of its workers taken together."""

from __future__ import annotations

from promgun.metrics.label_values import CpuMode, ExitCause, LogLevel, MasterSignal, ReloadResult, WorkerCount
from promgun.metrics.spec import CounterFamily, GaugeFamily, HistogramFamily, MetricSpec

UP: GaugeFamily[tuple[()]] = GaugeFamily(
    name="gunicorn_up",
    group="master",
    help="1 while the master lives.",
)
INFO: GaugeFamily[tuple[str, str, str, str]] = GaugeFamily(
    name="gunicorn_info",
    labels=(
        "gunicorn",
        "promgun",
        "python",
        "worker_type",
    ),
    group="master",
    help="Versions and worker type; always 1.",
)
WORKERS: GaugeFamily[tuple[WorkerCount]] = GaugeFamily(
    name="gunicorn_workers",
    labels=("state",),
    group="master",
    closed={"state": tuple(WorkerCount)},
    help="Workers wanted, alive, and booted.",
)
WORKER_SPAWNS: CounterFamily[tuple[()]] = CounterFamily(
    name="gunicorn_worker_spawns_total",
    group="master",
    help="Workers started.",
)
WORKER_BOOT_SECONDS: HistogramFamily[tuple[()]] = HistogramFamily(
    name="gunicorn_worker_boot_seconds",
    group="master",
    buckets="duration",
    help="Time from the fork of a worker until it is ready to serve.",
)
WORKER_EXITS: CounterFamily[tuple[ExitCause]] = CounterFamily(
    name="gunicorn_worker_exits_total",
    labels=("cause",),
    group="master",
    closed={"cause": tuple(ExitCause)},
    help="Workers that ended, by cause.",
)
MASTER_SIGNALS: CounterFamily[tuple[MasterSignal]] = CounterFamily(
    name="gunicorn_master_signals_total",
    labels=("signal",),
    group="master",
    closed={"signal": tuple(MasterSignal)},
    help="Signals that the master received.",
)
RELOADS: CounterFamily[tuple[ReloadResult]] = CounterFamily(
    name="gunicorn_reloads_total",
    labels=("result",),
    group="master",
    closed={"result": tuple(ReloadResult)},
    help="Reloads by SIGHUP; failed means that the configuration was not applied whole.",
)
LAST_RELOAD_TIMESTAMP_SECONDS: GaugeFamily[tuple[()]] = GaugeFamily(
    name="gunicorn_last_reload_timestamp_seconds",
    group="master",
    help="When the last reload ended, in Unix time.",
)
LOG_MESSAGES: CounterFamily[tuple[LogLevel]] = CounterFamily(
    name="gunicorn_log_messages_total",
    labels=("level",),
    group="master",
    closed={"level": tuple(LogLevel)},
    help="Records of the error log, by level.",
)
MASTER_UPTIME_SECONDS: GaugeFamily[tuple[()]] = GaugeFamily(
    name="gunicorn_master_uptime_seconds",
    group="master",
    help="Time since the master was started.",
)
MASTER_RESIDENT_MEMORY_BYTES: GaugeFamily[tuple[()]] = GaugeFamily(
    name="gunicorn_master_resident_memory_bytes",
    group="master",
    help="Resident memory of the master.",
)
MASTER_CPU_SECONDS: CounterFamily[tuple[CpuMode]] = CounterFamily(
    name="gunicorn_master_cpu_seconds_total",
    labels=("mode",),
    group="master",
    closed={"mode": tuple(CpuMode)},
    help="CPU time of the master, and of masters before it that ended after an upgrade or a rollback.",
)

FAMILIES: tuple[MetricSpec, ...] = (
    UP,
    INFO,
    WORKERS,
    WORKER_SPAWNS,
    WORKER_BOOT_SECONDS,
    WORKER_EXITS,
    MASTER_SIGNALS,
    RELOADS,
    LAST_RELOAD_TIMESTAMP_SECONDS,
    LOG_MESSAGES,
    MASTER_UPTIME_SECONDS,
    MASTER_RESIDENT_MEMORY_BYTES,
    MASTER_CPU_SECONDS,
)
