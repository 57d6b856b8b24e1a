"""Written cases for the alert rules: one sample a minute, and whether the alert fires at a given minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

A = 'job="promgun", instance="a:9164"'
B = 'job="promgun", instance="b:9164"'
#: More requests than the least that shares and quantiles are judged by.
MANY = f'gunicorn_requests_total{{{A}, method="GET", route="", status="200"}}'


@dataclass(frozen=True, slots=True)
class Case:
    """``series`` in promtool's notation; ``fires`` gives the labels that the alert must have beside job and instance.

    ``None`` for ``fires``: the alert must not fire. ``instance`` is that of the alert, empty where it has none.
    """

    name: str
    series: Mapping[str, str]
    minute: int
    fires: Mapping[str, str] | None = None
    instance: str = "a:9164"


@dataclass(frozen=True, slots=True)
class Cases:
    """The cases of one alert, and its severity."""

    severity: str
    cases: tuple[Case, ...] = field(default=())


def fires(name: str, minute: int, series: Mapping[str, str], /, instance: str = "a:9164", **labels: str) -> Case:
    """Return a case in which the alert fires."""
    return Case(name, series, minute, labels, instance)


def quiet(name: str, minute: int, series: Mapping[str, str]) -> Case:
    """Return a case in which the alert does not fire."""
    return Case(name, series, minute)


def requests(status: str, values: str) -> dict[str, str]:
    """Return requests answered with that status."""
    return {f'gunicorn_requests_total{{{A}, method="GET", route="/x", status="{status}"}}': values}


def durations(*counts: int) -> dict[str, str]:
    """Return requests a minute that took up to 0.5 s, up to 2.5 s, and longer."""
    bounds = ("0.5", "2.5", "+Inf")
    name = f'gunicorn_request_duration_seconds_bucket{{{A}, method="GET", route="", status="200", le='
    return {f'{name}"{bound}"}}': f"0+{count}x20" for bound, count in zip(bounds, counts, strict=True)}


def workers(busy: str, waiting: str = "", on: str = A) -> dict[str, str]:
    """Return two workers of capacity 1 that are busy so many seconds a minute, and connections that wait."""
    queue = {f'gunicorn_listener_queue_connections{{{on}, listener="http://0.0.0.0:80"}}': waiting} if waiting else {}
    return queue | {
        series: values
        for worker in ("1", "2")
        for series, values in (
            (f'gunicorn_worker_capacity{{{on}, worker_id="{worker}"}}', "1x20"),
            (f'gunicorn_worker_busy_seconds_total{{{on}, worker_id="{worker}"}}', busy),
        )
    }


def queue_of(waiting: str) -> dict[str, str]:
    """Return an accept queue for 100 connections."""
    on = f'{A}, listener="http://0.0.0.0:80"'
    return {
        f"gunicorn_listener_queue_connections{{{on}}}": waiting,
        f"gunicorn_listener_queue_limit{{{on}}}": "100x20",
    }


def exits(cause: str, values: str) -> dict[str, str]:
    """Return ends of workers."""
    return {f'gunicorn_worker_exits_total{{{A}, cause="{cause}"}}': values}


def counts(target: str, booted: str) -> dict[str, str]:
    """Return workers wanted and ready."""
    return {
        f'gunicorn_workers{{{A}, state="target"}}': target,
        f'gunicorn_workers{{{A}, state="booted"}}': booted,
    }


def memory(values: str, uptime: str) -> dict[str, str]:
    """Return a worker's memory and age."""
    return {
        f'gunicorn_worker_resident_memory_bytes{{{A}, worker_id="3"}}': values,
        f'gunicorn_worker_uptime_seconds{{{A}, worker_id="3"}}': uptime,
    }


UNCLEAN = (
    *("timeout", "graceful_timeout", "oom", "segfault", "killed"),
    *("other_signal", "boot_error", "app_load_error", "app_exit", "parent_lost"),
)
CLEAN = ("max_requests", "reload", "scale_in", "shutdown")

CASES: Mapping[str, Cases] = {
    "GunicornEndpointDown": Cases(
        "critical",
        (
            fires("cannot be scraped", 6, {f"up{{{A}}}": "1 0x10"}),
            fires("the master is gone", 6, {f"up{{{A}}}": "1x10", f"gunicorn_up{{{A}}}": "1 0x10"}),
            quiet("up", 9, {f"up{{{A}}}": "1x10", f"gunicorn_up{{{A}}}": "1x10"}),
            quiet("down for a moment", 9, {f"up{{{A}}}": "1 0 0 0 1x10"}),
            quiet("another job is down", 9, {'up{job="node", instance="a:9100"}': "0x10"}),
        ),
    ),
    "GunicornNoTargets": Cases(
        "critical",
        (
            fires("another job only", 6, {'up{job="node", instance="a:9100"}': "1x10"}, instance=""),
            quiet("a target that is down", 9, {f"up{{{A}}}": "0x10"}),
        ),
    ),
    "GunicornErrorShare": Cases(
        "critical",
        (
            fires("one in ten", 12, requests("500", "0+6x20") | requests("200", "0+54x20"), instance=""),
            fires("nothing but errors", 12, requests("503", "0+10x20"), instance=""),
            quiet("one in a hundred", 12, requests("500", "0+1x20") | requests("200", "0+99x20")),
            quiet("too few to judge", 12, requests("500", "0+1x20") | requests("200", "0+2x20")),
            quiet("not found is no fault", 12, requests("404", "0+60x20")),
            quiet("for two minutes", 12, requests("500", "0x7 60 120x10") | requests("200", "0+540x20")),
        ),
    ),
    "GunicornSlow": Cases(
        "warning",
        (
            fires(
                "a tenth above 0.5 s", 12, durations(90, 100, 100) | {MANY: "0+100x20"}, instance="", quantile="0.99"
            ),
            quiet("all below 0.5 s", 12, durations(100, 100, 100) | {MANY: "0+100x20"}),
            quiet("too few to judge", 12, durations(0, 1, 1) | {MANY: "0+1x20"}),
        ),
    ),
    "GunicornStuckRequest": Cases(
        "warning",
        (
            fires("for 90 s", 3, {f'gunicorn_worker_oldest_request_seconds{{{A}, worker_id="1"}}': "0+30x10"}),
            quiet("for 10 s", 3, {f'gunicorn_worker_oldest_request_seconds{{{A}, worker_id="1"}}': "10x10"}),
        ),
    ),
    "GunicornLoopBlocked": Cases(
        "warning",
        (
            fires("for 2 s, once", 6, {f'gunicorn_worker_loop_lag_seconds{{{A}, worker_id="1"}}': "0 0 2 2 0x10"}),
            quiet("for half a second", 6, {f'gunicorn_worker_loop_lag_seconds{{{A}, worker_id="1"}}': "0.5x15"}),
        ),
    ),
    "GunicornSaturated": Cases(
        "warning",
        (
            fires("both workers busy", 12, workers("0+58x20")),
            fires("half busy, yet two wait", 12, workers("0+30x20", "2x20")),
            quiet("half busy", 12, workers("0+30x20", "0x20")),
            quiet("a short peak", 12, workers("0x9 60 60x10")),
        ),
    ),
    "GunicornQueueFilling": Cases(
        "warning",
        (
            fires("more than half full", 6, queue_of("60x20")),
            quiet("a tenth full", 6, queue_of("10x20")),
        ),
    ),
    "GunicornQueueOverflow": Cases(
        "critical",
        (
            fires("three more", 8, {f"gunicorn_listen_overflows_total{{{A}}}": "719x5 722x10"}),
            quiet("none since the start", 8, {f"gunicorn_listen_overflows_total{{{A}}}": "719x20"}),
        ),
    ),
    "GunicornWorkersMissing": Cases(
        "critical",
        (
            fires("one of four", 6, counts("4x10", "4 3x10")),
            quiet("all there", 9, counts("4x10", "4x10")),
            quiet("old and new during a reload", 9, counts("4x10", "8x10")),
            quiet("replaced within a minute", 9, counts("4x10", "4 3 4x10")),
        ),
    ),
    "GunicornWorkersDying": Cases(
        "warning",
        (
            *(fires(cause, 8, exits(cause, "0x5 1x10"), cause=cause) for cause in UNCLEAN),
            *(quiet(cause, 8, exits(cause, "0x5 4x10")) for cause in CLEAN),
            quiet("long ago", 40, exits("oom", "0x5 1x40")),
            quiet("a restart counts from 0 again", 8, exits("oom", "5x5 0x10")),
        ),
    ),
    "GunicornCrashLoop": Cases(
        "critical",
        (
            fires("one a minute", 16, exits("app_exit", "0+1x20")),
            fires("of two causes", 16, exits("oom", "0+1x20") | exits("timeout", "0+1x20")),
            quiet("three", 16, exits("app_exit", "0x5 3x20")),
            quiet("recycled often", 16, exits("max_requests", "0+5x20")),
        ),
    ),
    "GunicornRestarting": Cases(
        "critical",
        (
            fires("three times", 8, {f"gunicorn_master_uptime_seconds{{{A}}}": "10 70 10 70 10 70 10 70 130"}),
            quiet("a deploy", 8, {f"gunicorn_master_uptime_seconds{{{A}}}": "1000+60x4 10+60x10"}),
            quiet("steady", 16, {f"gunicorn_master_uptime_seconds{{{A}}}": "0+60x20"}),
        ),
    ),
    "GunicornMemoryGrowth": Cases(
        "warning",
        (
            fires("4 MB a minute", 130, memory("100000000+4000000x140", "0+60x140"), worker_id="3"),
            quiet("0.5 MB a minute", 130, memory("100000000+500000x140", "0+60x140")),
            quiet("recycled in time", 130, memory("100000000+4000000x140", "0+60x29 " * 5)),
            quiet("it has just begun", 90, memory("100000000x60 100000000+4000000x80", "0+60x140")),
        ),
    ),
    "GunicornReloadFailed": Cases(
        "warning",
        (
            fires("refused", 6, {f'gunicorn_reloads_total{{{A}, result="failed"}}': "0x3 1x10"}, result="failed"),
            quiet("done", 6, {f'gunicorn_reloads_total{{{A}, result="ok"}}': "0x3 1x10"}),
        ),
    ),
    "GunicornMetricsIncomplete": Cases(
        "warning",
        (
            fires("no space", 6, {f'promgun_store_errors_total{{{A}, reason="no_space"}}': "0x3 2x10"}),
            fires(
                "too many routes",
                6,
                {
                    f'promgun_store_errors_total{{{A}, reason="no_space"}}': "0x10",
                    f'promgun_label_sets_folded_total{{{A}, family="gunicorn_requests_total"}}': "0x3 9x10",
                },
            ),
            quiet("whole", 6, {f'promgun_store_errors_total{{{A}, reason="no_space"}}': "2x10"}),
        ),
    ),
}
