"""The dashboard's panels about the server: workers, exits, deploys, promgun itself."""

from __future__ import annotations

from promgun.export.panel import Panel, Query, Row


def _by_worker(family: str, *, rising: bool = False) -> str:
    series = f"{family}{{<servers>}}"
    return f"sum by (instance, worker_id) ({f'rate({series}[<rate>])' if rising else series})"


WORKERS = Row(
    "Workers",
    (
        Panel(
            title="Workers by state",
            text="booting, idle, busy, draining (asked to stop), hung (no heartbeat for half of --timeout or longer).",
            queries=(Query("sum by (state) (gunicorn_worker_state{<servers>})", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            title="Memory of the workers",
            text="Resident memory. A worker that only grows leaks; steps back are new workers.",
            queries=(Query(_by_worker("gunicorn_worker_resident_memory_bytes"), "{{instance}} {{worker_id}}"),),
            unit="bytes",
        ),
        Panel(
            title="Garbage collection",
            text="Seconds per second spent in collections, by worker; collections per second, by generation.",
            queries=(
                Query(_by_worker("gunicorn_worker_gc_pause_seconds_total", rising=True), "{{instance}} {{worker_id}}"),
                Query(
                    "sum by (generation) (rate(gunicorn_worker_gc_collections_total{<servers>}[<rate>]))",
                    "generation {{generation}}",
                    "cps",
                ),
            ),
            unit="percentunit",
        ),
        Panel(
            title="Heartbeat",
            text="Time since the workers' last heartbeat, the longest of each instance. Gunicorn kills at --timeout.",
            queries=(Query("max by (instance) (gunicorn_worker_heartbeat_age_seconds{<servers>})", "{{instance}}"),),
            unit="s",
        ),
        Panel(
            title="Files and threads",
            text="Open file descriptors and threads. What only rises is a leak.",
            queries=(
                Query("sum by (instance) (gunicorn_worker_open_fds{<servers>})", "{{instance}} descriptors"),
                Query("sum by (instance) (gunicorn_worker_threads{<servers>})", "{{instance}} threads"),
            ),
        ),
        Panel(
            title="Context switches",
            text="Involuntary ones say that workers compete for CPUs.",
            queries=(
                Query(
                    "sum by (instance, kind) (rate(gunicorn_worker_context_switches_total{<servers>}[<rate>]))",
                    "{{instance}} {{kind}}",
                ),
            ),
            unit="cps",
        ),
        Panel(
            title="Workers now",
            text="One line for each worker. Worker_id is its slot, which its successor takes over.",
            kind="table",
            queries=(
                Query("max by (instance, worker_id, state) (gunicorn_worker_state{<servers>} == 1)", "is"),
                Query(_by_worker("gunicorn_worker_requests_total", rising=True), "Requests/s", "reqps"),
                Query(_by_worker("gunicorn_worker_requests_in_progress"), "Running", "none"),
                Query(_by_worker("gunicorn_worker_capacity"), "Capacity", "none"),
                Query(_by_worker("gunicorn_worker_requests_left"), "Left", "none"),
                Query(_by_worker("gunicorn_worker_cpu_seconds_total", rising=True), "CPU", "percentunit"),
                Query(_by_worker("gunicorn_worker_resident_memory_bytes"), "Memory", "bytes"),
                Query(_by_worker("gunicorn_worker_unique_memory_bytes"), "Unshared", "bytes"),
                Query(_by_worker("gunicorn_worker_uptime_seconds"), "Uptime", "s"),
            ),
            width=24,
            hidden=("is",),
        ),
    ),
)

EXITS = Row(
    "Exits",
    (
        Panel(
            title="Ends of workers by cause",
            text="max_requests, reload, scale_in and shutdown were asked for; every other cause is a fault.",
            queries=(
                Query("sum by (cause) (increase(gunicorn_worker_exits_total{<servers>}[<rate>])) > 0", "{{cause}}"),
            ),
            unit="none",
            stacked=True,
            bars=True,
        ),
        Panel(
            title="Requests lost or left without an answer",
            text="Lost with a worker that ended (the error log names them); left: by a worker that went on.",
            queries=(
                Query(
                    "sum by (cause, route) (increase(gunicorn_requests_lost_total{<servers>}[<rate>])) > 0",
                    "{{cause}} {{route}}",
                ),
                Query(
                    "sum by (reason, route) (increase(gunicorn_requests_unanswered_total{<servers>}[<rate>])) > 0",
                    "left: {{reason}} {{route}}",
                ),
            ),
            unit="none",
            stacked=True,
            bars=True,
        ),
        Panel(
            title="Websockets",
            text="Open websockets, handshakes, messages and ends by close code per second, and how long they lasted.",
            queries=(
                Query("sum(gunicorn_websocket_connections{<servers>})", "open"),
                Query(
                    "sum by (direction) (rate(gunicorn_websocket_messages_total{<servers>}[<rate>]))",
                    "messages {{direction}} a second",
                ),
                Query(
                    "sum by (code) (rate(gunicorn_websocket_closes_total{<servers>}[<rate>]))",
                    "closed with {{code}} a second",
                ),
                Query(
                    "sum by (result) (rate(gunicorn_websocket_connections_total{<servers>}[<rate>]))",
                    "{{result}} a second",
                ),
                Query(
                    "histogram_quantile(0.50,"
                    " sum by (le) (rate(gunicorn_websocket_duration_seconds_bucket{<servers>}[<rate>])))",
                    "seconds p50",
                ),
            ),
        ),
        Panel(
            title="Starts",
            text="Workers started, and the time from fork to ready to serve (median, 99th percentile).",
            queries=(
                Query("sum(increase(gunicorn_worker_spawns_total{<servers>}[<rate>]))", "workers started"),
                *(
                    Query(
                        f"histogram_quantile(0.{digits},"
                        " sum by (le) (rate(gunicorn_worker_boot_seconds_bucket{<servers>}[<rate>])))",
                        f"boot seconds p{digits}",
                    )
                    for digits in ("50", "99")
                ),
            ),
        ),
    ),
)

DEPLOYS = Row(
    "Deploys",
    (
        Panel(
            title="Workers wanted, alive, booted",
            text="During a reload old and new workers live side by side.",
            queries=(Query("sum by (state) (gunicorn_workers{<servers>})", "{{state}}"),),
        ),
        Panel(
            title="Reloads and signals",
            text="Reloads by result, and signals that the masters received.",
            queries=(
                Query("sum by (result) (increase(gunicorn_reloads_total{<servers>}[<rate>])) > 0", "reload {{result}}"),
                Query(
                    "sum by (signal) (increase(gunicorn_master_signals_total{<servers>}[<rate>])) > 0", "SIG {{signal}}"
                ),
            ),
            unit="none",
            bars=True,
        ),
        Panel(
            title="Masters",
            text="Uptime falls to 0 at a restart, not at a reload.",
            queries=(Query("max by (instance) (gunicorn_master_uptime_seconds{<servers>})", "{{instance}} uptime"),),
            unit="s",
        ),
        Panel(
            title="Versions",
            text="What runs where. Two lines for one job are a deploy under way, or one that stopped half way.",
            kind="table",
            queries=(
                Query(
                    "max by (job, instance, worker_type, promgun, gunicorn, python) (gunicorn_info{<servers>})", "one"
                ),
                Query(
                    "max by (job, instance) (gunicorn_last_reload_timestamp_seconds{<servers>}) * 1000",
                    "Last reload",
                    "dateTimeFromNow",
                ),
                Query(
                    "max by (job, instance) (gunicorn_master_resident_memory_bytes{<servers>})",
                    "Memory of the master",
                    "bytes",
                ),
                Query(
                    "sum by (job, instance) (rate(gunicorn_master_cpu_seconds_total{<servers>}[<rate>]))",
                    "CPU of the master",
                    "percentunit",
                ),
            ),
            width=24,
            height=6,
            hidden=("one",),
        ),
    ),
)

ITSELF = Row(
    "promgun itself",
    (
        Panel(
            title="Time to collect",
            text="Time to read and merge the store for one page.",
            queries=(Query("max by (instance) (promgun_scrape_duration_seconds{<servers>})", "{{instance}}"),),
            unit="s",
        ),
        Panel(
            title="Store",
            text="It grows with label sets and with the number of processes at once, and does not shrink.",
            queries=(
                Query("max by (instance) (promgun_store_bytes{<servers>})", "{{instance}}", "bytes"),
                Query("max by (instance) (promgun_store_files{<servers>})", "{{instance}} files", "none"),
                Query("max by (instance) (promgun_store_slots{<servers>})", "{{instance}} slots", "none"),
            ),
        ),
        Panel(
            title="What is missing",
            text="Failures to store or read values, by reason; label sets beyond --metrics-max-label-sets, by family; "
            "requests that the metrics endpoint refused, by reason; reloads of its web configuration that failed.",
            queries=(
                Query("sum by (reason) (increase(promgun_store_errors_total{<servers>}[<rate>])) > 0", "{{reason}}"),
                Query(
                    "sum by (family) (increase(promgun_label_sets_folded_total{<servers>}[<rate>])) > 0",
                    "folded: {{family}}",
                ),
                Query(
                    "sum by (reason) (increase(promgun_endpoint_refused_total{<servers>}[<rate>])) > 0",
                    "endpoint refused: {{reason}}",
                ),
                Query(
                    "sum by (instance) (increase(promgun_web_config_reloads_total"
                    '{<servers>,result="failed"}[<rate>])) > 0',
                    "web configuration failed: {{instance}}",
                ),
            ),
            unit="none",
            bars=True,
        ),
    ),
)
