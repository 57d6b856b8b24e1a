"""Alert rules as data: when, what it means, what to do.

``<...>`` is filled in by :mod:`promgun.export.rules`; ``{{ ... }}`` by Prometheus, when the alert fires.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from promgun.metrics.label_values import ExitCause

CRITICAL, WARNING = "critical", "warning"

_BUSY_ENOUGH = "sum by (<by>) (increase(gunicorn_requests_total{<select>}[<window>])) >= <min_requests>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert rule; ``wait`` is how long the condition must hold, empty to alert at once.

    ``routes`` is the query that shows which routes it is, where the action says to look at them.
    """

    name: str
    expr: str
    severity: str
    summary: str
    meaning: str
    action: str
    wait: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    routes: str = ""


_REQUESTS = (
    Alert(
        name="GunicornErrorShare",
        expr=f"job:gunicorn_request_errors:ratio{{<select>}} > <error_share> and {_BUSY_ENOUGH}",
        wait="<wait>",
        severity=CRITICAL,
        summary="{{ $value | humanizePercentage }} of the requests to {{ $labels.job }} fail",
        meaning="More requests than usual are answered with a status of 500 or above.",
        action="See which routes and exceptions it is (gunicorn_failed_requests_total by route and error_type) and "
        "read their tracebacks in the error log; if it began with a deploy, roll that back.",
        routes='topk(10, sum by (route) (rate(gunicorn_requests_total{<select>, status=~"5.."}[<window>]))'
        " / sum by (route) (rate(gunicorn_requests_total{<select>}[<window>])))",
    ),
    Alert(
        name="GunicornSlow",
        expr='job:gunicorn_request_duration_seconds:quantile{<select>, quantile="<slow_quantile>"} > <slow_seconds>'
        f" and on (<by>) {_BUSY_ENOUGH}",
        wait="<wait>",
        severity=WARNING,
        summary="{{ $labels.job }} is slow: quantile {{ $labels.quantile }} is {{ $value | humanizeDuration }}",
        meaning="The slowest requests take longer than agreed, from the parsed head to the last byte sent.",
        action="See which routes it is (gunicorn_request_duration_seconds by route). If GunicornSaturated fires too, "
        "add workers or instances; if not, look at what those routes wait for.",
        routes="topk(10, histogram_quantile(<slow_quantile>, "
        "sum by (route, le) (rate(gunicorn_request_duration_seconds_bucket{<select>}[<window>]))))",
    ),
    Alert(
        name="GunicornStuckRequest",
        expr="max by (<by>, instance) (gunicorn_worker_oldest_request_seconds{<select>}) > <stuck_seconds>",
        severity=WARNING,
        summary="A request on {{ $labels.instance }} has been running for {{ $value | humanizeDuration }}",
        meaning="A request does not end, and durations only show it when it does.",
        action="'promgun ps --requests' on that host shows what each worker is doing. Give every outgoing call a "
        "timeout. Where requests are meant to last (streams, long polls), raise the threshold.",
    ),
    Alert(
        name="GunicornLoopBlocked",
        expr="max by (<by>, instance) (max_over_time(gunicorn_worker_loop_lag_seconds{<select>}[<window>]))"
        " > <blocked_seconds>",
        severity=WARNING,
        summary="An event loop on {{ $labels.instance }} was blocked for {{ $value | humanizeDuration }}",
        meaning="Something kept the loop of a worker (asgi, uvicorn), or the hub of gevent or eventlet, to itself: all "
        "requests of that worker waited.",
        action="The error log has the stacks ('has blocked its event loop'), the culprit's first. Await it, or give it "
        "to a thread (run_in_executor, anyio.to_thread).",
    ),
)

_SATURATION = (
    Alert(
        name="GunicornSaturated",
        expr="instance:gunicorn_saturation:ratio{<select>} > <saturation>",
        wait="<wait>",
        severity=WARNING,
        summary="{{ $labels.instance }} is asked for {{ $value | humanizePercentage }} of what it can serve",
        meaning="Running and waiting requests together fill the workers: above 100 %, some wait in the accept queue.",
        action="Add workers, threads or instances. If the CPUs are busy, more workers do not help: add hosts. If "
        "they are idle, requests wait for something else: see which routes keep the workers busy.",
        routes="topk(10, sum by (route) (rate(gunicorn_request_duration_seconds_sum{<select>}[<window>])))",
    ),
    Alert(
        name="GunicornQueueFilling",
        expr="instance:gunicorn_listener_queue:ratio{<select>} > <queue_share>",
        severity=WARNING,
        summary="The accept queue of {{ $labels.instance }} is {{ $value | humanizePercentage }} full",
        meaning="Connections wait in the kernel because no worker takes them; when the queue is full, clients get "
        "no connection.",
        action="Act as for GunicornSaturated. A longer queue (--backlog and net.core.somaxconn) only lets clients "
        "wait longer.",
    ),
    Alert(
        name="GunicornQueueOverflow",
        expr="increase(gunicorn_listen_overflows_total{<select>}[<event_window>]) > 0",
        severity=CRITICAL,
        summary="{{ $labels.instance }} turns connections away: its accept queue was full",
        meaning="{{ $value | humanize }} connections found a full queue, and their clients wait for a retry or fail. "
        "The kernel counts for the whole network namespace: on a host with several servers it may be another one.",
        action="Compare gunicorn_listener_queue_connections with its limit. Add workers or instances, or spread the "
        "load; raise --backlog and net.core.somaxconn only for short bursts.",
    ),
    Alert(
        name="GunicornWorkersMissing",
        expr='gunicorn_workers{<select>, state="target"} - ignoring (state)'
        ' gunicorn_workers{<select>, state="booted"} > 0',
        wait="<wait>",
        severity=CRITICAL,
        summary="{{ $value }} workers of {{ $labels.instance }} are missing",
        meaning="Fewer workers serve than were asked for: they die as fast as they start, or do not finish booting.",
        action="The error log says why they end; GunicornWorkersDying names the cause. For an application that takes "
        "long to load see gunicorn_worker_boot_seconds.",
    ),
)

#: Cause of gunicorn_worker_exits_total: what happened, and what to do. A key for each cause that is ``unclean``.
DEATHS: Mapping[ExitCause, tuple[str, str]] = {
    ExitCause.TIMEOUT: (
        "The master killed workers that had been silent for longer than --timeout.",
        "The error log names the requests that ran and has the worker's stacks. Give every outgoing call a timeout.",
    ),
    ExitCause.GRACEFUL_TIMEOUT: (
        "Workers that were to stop did not finish within --graceful-timeout and were killed with their requests.",
        "Raise --graceful-timeout above your longest request, or shorten that.",
    ),
    ExitCause.OOM: (
        "The kernel killed workers because the control group was out of memory.",
        "Raise the memory limit, run fewer workers, or recycle them (--max-requests) while you look for the leak.",
    ),
    ExitCause.SEGFAULT: (
        "Workers crashed in native code.",
        "Run with PYTHONFAULTHANDLER=1 for the stack, and look at what C extensions were changed last.",
    ),
    ExitCause.KILLED: (
        "Something outside sent SIGKILL to workers.",
        "Look for the system's OOM killer (dmesg), container limits, and people or scripts that kill.",
    ),
    ExitCause.OTHER_SIGNAL: (
        "A signal that workers do not handle ended them.",
        "The error log says which. SIGABRT comes from native code, SIGBUS from a full disk under a mapped file.",
    ),
    ExitCause.BOOT_ERROR: (
        "Workers failed before they could serve.",
        "The error log has the traceback: it comes from a hook, or from the application's start.",
    ),
    ExitCause.APP_LOAD_ERROR: (
        "The application could not be imported.",
        "The error log has the traceback. Check what was deployed, its dependencies and its environment.",
    ),
    ExitCause.APP_EXIT: (
        "The application ended the process by itself (sys.exit, os._exit).",
        "Find the call: the error log names the requests that ran. A library may make it after a fatal error.",
    ),
    ExitCause.PARENT_LOST: (
        "Workers ended because their master was gone.",
        "Find out what ended the master: its log, its supervisor, the system's OOM killer.",
    ),
}

_WORKERS = (
    *(
        Alert(
            name="GunicornWorkersDying",
            expr=f'sum by (<by>, instance) (increase(gunicorn_worker_exits_total{{<select>, cause="{cause}"}}'
            "[<event_window>])) > <deaths>",
            severity=WARNING,
            labels={"cause": cause},
            summary=f"Workers of {{{{ $labels.instance }}}} die: {cause}",
            meaning=meaning,
            action=action,
        )
        for cause, (meaning, action) in DEATHS.items()
    ),
    Alert(
        name="GunicornCrashLoop",
        expr="sum by (<by>, instance) (increase(gunicorn_worker_exits_total{<select>, "
        f'cause=~"{"|".join(DEATHS)}"}}[<event_window>])) > <crash_loop>',
        severity=CRITICAL,
        summary="Workers of {{ $labels.instance }} die again and again",
        meaning="{{ $value | humanize }} workers died in <event_window>. Each takes its requests with it.",
        action="GunicornWorkersDying says of what. If it began with a deploy, roll that back.",
    ),
    Alert(
        name="GunicornRestarting",
        expr="resets(gunicorn_master_uptime_seconds{<select>}[<event_window>]) >= <restarts>",
        severity=CRITICAL,
        summary="{{ $labels.instance }} started {{ $value }} times in <event_window>",
        meaning="The whole server ends and is started anew by its supervisor. Gunicorn ends when its first workers "
        "cannot boot or cannot load the application.",
        action="Read the log of the last start, also in the supervisor (systemctl status, kubectl logs --previous).",
    ),
    Alert(
        name="GunicornMemoryGrowth",
        expr="deriv(gunicorn_worker_resident_memory_bytes{<select>}[<memory_window>]) * 3600 > <memory_growth>"
        " and gunicorn_worker_uptime_seconds{<select>} > <memory_seconds>",
        wait="<memory_window>",
        severity=WARNING,
        summary="A worker of {{ $labels.instance }} grows by {{ $value | humanize1024 }}B an hour",
        meaning="Worker {{ $labels.worker_id }} has kept growing for longer than <memory_window>: a leak, or a cache "
        "without a bound.",
        action="--max-requests with --max-requests-jitter bounds it for now. tracemalloc finds what grows.",
    ),
)

_SERVER = (
    Alert(
        name="GunicornEndpointDown",
        expr="up{<select>} == 0 or gunicorn_up{<select>} == 0",
        wait="<wait>",
        severity=CRITICAL,
        summary="{{ $labels.instance }} does not answer Prometheus",
        meaning="The endpoint cannot be scraped, or its master is gone: the server is down, or cannot be reached.",
        action="On that host: 'promgun ps', the server's log, then curl http://HOST:9164/metrics from the host of "
        "Prometheus: --metrics-bind must not be 127.0.0.1 there, and a firewall must let it pass.",
    ),
    Alert(
        name="GunicornNoTargets",
        expr="absent(up{<select>})",
        wait="<wait>",
        severity=CRITICAL,
        summary="Prometheus has no target of the job {{ $labels.job }}",
        meaning="Nothing is scraped under this name, so none of the other alerts can fire.",
        action="Check the scrape job and its discovery (Status, Targets in Prometheus): the name of the job must be "
        "the one these rules were made with.",
    ),
    Alert(
        name="GunicornReloadFailed",
        expr='increase(gunicorn_reloads_total{<select>, result="failed"}[<event_window>]) > 0',
        severity=WARNING,
        summary="{{ $labels.instance }} refused a reload",
        meaning="A reload (SIGHUP) found a configuration that cannot be used: the old one goes on.",
        action="The error log says what is wrong. Correct it and reload again before the next restart meets it.",
    ),
    Alert(
        name="GunicornMetricsIncomplete",
        expr="sum by (<by>, instance) (increase(promgun_store_errors_total{<select>}[<event_window>])) > 0"
        " or sum by (<by>, instance) (increase(promgun_label_sets_folded_total{<select>}[<event_window>])) > 0",
        severity=WARNING,
        summary="Metrics of {{ $labels.instance }} are incomplete",
        meaning="The store could not keep everything, or a family reached --metrics-max-label-sets and folds the rest.",
        action="promgun_store_errors_total names the reason (no_space: enlarge /dev/shm or set --metrics-dir); "
        "promgun_label_sets_folded_total names the family: a label of it has too many values.",
    ),
)

ALERTS: tuple[Alert, ...] = (*_SERVER, *_REQUESTS, *_SATURATION, *_WORKERS)
