"""Snapshots from hand-made pages, what happened between them, the last minute, and the JSON of it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from promgun.metrics.catalog import CATALOG
from promgun.status.from_page import FAMILIES, snapshot_of
from promgun.status.history import History
from promgun.status.interval import Interval
from promgun.status.json import SCHEMA, to_json, to_object
from promgun.status.quantiles import quantile
from promgun.status.snapshot import Details, OpenRequest, Queue, Snapshot

BOUNDS = ("0.1", "1.0", "+Inf")


def page(
    *,
    uptime: float = 100.0,
    requests: dict[str, int] | None = None,
    buckets: tuple[int, int, int] = (0, 0, 0),
    slots: dict[int, tuple[int, float, float]] | None = None,
    exits: dict[str, int] | None = None,
    states: dict[int, str] | None = None,
    extra: str = "",
) -> str:
    """A page: requests by status, cumulative buckets, and by slot (requests, busy seconds, seconds of CPU)."""
    lines = [
        "# TYPE gunicorn_up gauge",
        "gunicorn_up 1",
        "# TYPE gunicorn_master_uptime_seconds gauge",
        f"gunicorn_master_uptime_seconds {uptime}",
        "# TYPE gunicorn_workers gauge",
        'gunicorn_workers{state="target"} 2',
        "# TYPE gunicorn_requests_total counter",
        *(
            f'gunicorn_requests_total{{method="{method}",route="",status="{status}"}} {count}'
            for status, count in (requests or {}).items()
            for method in ("GET", "POST")
        ),
        "# TYPE gunicorn_request_duration_seconds histogram",
        *(
            f'gunicorn_request_duration_seconds_bucket{{le="{bound}",status="{status}"}} {count}'
            for status in ("200", "500")
            for bound, count in zip(BOUNDS, buckets, strict=True)
        ),
        "# TYPE gunicorn_worker_exits_total counter",
        *(f'gunicorn_worker_exits_total{{cause="{cause}"}} {count}' for cause, count in (exits or {}).items()),
        "# TYPE gunicorn_listener_queue_connections gauge",
        'gunicorn_listener_queue_connections{listener="http://[::1]:80"} 3',
        "# TYPE gunicorn_listener_queue_limit gauge",
        'gunicorn_listener_queue_limit{listener="http://[::1]:80"} 64',
        "# TYPE gunicorn_worker_state gauge",
    ]
    for slot, state in (states or {1: "idle", 2: "busy"}).items():
        names = ("booting", "idle", "busy", "draining", "hung")
        lines += [f'gunicorn_worker_state{{state="{name}",worker_id="{slot}"}} {int(name == state)}' for name in names]
        lines += ["# TYPE gunicorn_websocket_connections gauge"]
        lines += [f'gunicorn_websocket_connections{{worker_id="{slot}"}} {slot - 1}']
        figures = ("capacity", 4), ("requests_in_progress", 1), ("requests_left", 7), ("loop_lag_seconds", 0.5)
        for name, value in figures:
            lines += [f"# TYPE gunicorn_worker_{name} gauge", f'gunicorn_worker_{name}{{worker_id="{slot}"}} {value}']
    for slot, (count, busy, cpu) in (slots or {}).items():
        lines += [
            "# TYPE gunicorn_worker_requests_total counter",
            f'gunicorn_worker_requests_total{{worker_id="{slot}"}} {count}',
            "# TYPE gunicorn_worker_busy_seconds_total counter",
            f'gunicorn_worker_busy_seconds_total{{worker_id="{slot}"}} {busy}',
            "# TYPE gunicorn_worker_cpu_seconds_total counter",
            f'gunicorn_worker_cpu_seconds_total{{mode="user",worker_id="{slot}"}} {cpu}',
            f'gunicorn_worker_cpu_seconds_total{{mode="system",worker_id="{slot}"}} {cpu}',
        ]
    return "\n".join([*lines, extra, ""])


def snapshot(text: str, taken: float = 0.0, details: Details | None = None) -> Snapshot:
    return snapshot_of(text_string_to_metric_families(text), taken=taken, at=1000.0 + taken, details=details)


# -- snapshots -------------------------------------------------------------------------------------------------------


def test_only_families_of_the_contract_are_read() -> None:
    assert {spec.family for spec in CATALOG} >= FAMILIES


def test_page_becomes_a_snapshot() -> None:
    running = (OpenRequest(phase="application", age=2.0, method="GET", path="/slow"),)
    details = Details(name="shop", pids={2: 4711}, running={2: running})
    seen = snapshot(page(requests={"200": 5}, slots={1: (3, 1.5, 0.25)}, exits={"oom": 1, "killed": 0}), 7.0, details)
    assert (seen.up, seen.uptime, seen.target, seen.taken, seen.at) == (True, 100.0, 2, 7.0, 1007.0)
    assert seen.states == {"idle": 1, "busy": 1}
    assert (seen.in_progress, seen.websockets, seen.in_use, seen.capacity, seen.waiting) == (2, 1, 3, 8, 3)
    assert seen.workers[1].loop_lag == 0.5
    assert seen.requests == {"200": 10.0}, "summed over methods and routes"
    assert seen.slots[1].cpu == 0.5, "user and system"
    assert seen.exits == {"oom": 1, "killed": 0}
    assert seen.queues == (Queue("http://[::1]:80", 3, 64),)
    assert (seen.workers[2].pid, seen.workers[2].running, seen.workers[2].requests_left) == (4711, running, 7)
    assert seen.workers[1].pid is None


def test_page_of_something_else_is_an_instance_that_is_down() -> None:
    seen = snapshot("# TYPE shop_up gauge\nshop_up 1\n")
    assert (seen.up, seen.uptime, seen.workers, seen.waiting) == (False, None, {}, None)


def test_what_is_no_number_or_no_slot_is_left_out() -> None:
    extra = "\n".join(
        [
            "# TYPE gunicorn_worker_resident_memory_bytes gauge",
            'gunicorn_worker_resident_memory_bytes{worker_id="1"} NaN',
            'gunicorn_worker_resident_memory_bytes{worker_id="2"} +Inf',
            "# TYPE gunicorn_worker_oldest_request_seconds gauge",
            *(f'gunicorn_worker_oldest_request_seconds{{worker_id="{text}"}} 1' for text in ("", "x", "²", "9" * 400)),
            'gunicorn_request_duration_seconds_bucket{le="nonsense"} 5',
            'gunicorn_request_duration_seconds_bucket{le="NaN"} 5',
        ]
    )
    seen = snapshot(page(extra=extra))
    assert set(seen.workers) == {1, 2}
    assert [worker.memory for worker in seen.workers.values()] == [None, None]
    assert set(seen.durations) == {0.1, 1.0, math.inf}


# -- intervals -------------------------------------------------------------------------------------------------------


def between(earlier: str, later: str, seconds: float = 2.0) -> Interval:
    interval = Interval.between(snapshot(earlier), snapshot(later, seconds))
    assert interval is not None
    return interval


def test_rates_shares_and_utilisation() -> None:
    interval = between(
        page(requests={"200": 10}, slots={1: (10, 5.0, 1.0), 2: (0, 0.0, 0.0)}),
        page(uptime=102, requests={"200": 16, "503": 2, "404": 2}, slots={1: (22, 9.0, 1.5), 2: (8, 4.0, 0.0)}),
    )
    assert interval.seconds == 2.0
    assert interval.requests == 20
    assert interval.requests_per_second == 10.0
    assert interval.error_share == 0.2
    assert interval.utilisation == pytest.approx(8.0 / (2 * 8))
    assert interval.workers[1].requests_per_second == 6.0
    assert interval.workers[1].cpu_share == pytest.approx(0.5)
    assert interval.workers[1].utilisation == pytest.approx(0.5)


def test_without_requests_there_is_nothing_to_share_out() -> None:
    interval = between(page(buckets=(1, 1, 1)), page(uptime=102, buckets=(1, 1, 1)))
    assert interval.requests_per_second == 0
    assert (interval.error_share, interval.p50, interval.p99) == (None, None, None)


def test_counters_that_sank_began_anew() -> None:
    interval = between(
        page(uptime=500, requests={"200": 100}, buckets=(50, 90, 100), slots={1: (99, 70.0, 9.0)}, exits={"oom": 3}),
        page(uptime=1, requests={"200": 4}, buckets=(4, 4, 4), slots={1: (8, 2.0, 0.5)}, exits={"oom": 1}),
    )
    assert interval.seconds == 2.0, "another master's uptime is no clock to go by"
    assert interval.requests == 8
    assert interval.p99 == pytest.approx(0.099)
    assert interval.workers[1].requests_per_second == 4.0
    assert interval.exits == {"oom": 1}


def test_series_that_are_new_count_from_zero() -> None:
    interval = between(page(), page(uptime=102, requests={"500": 3}, slots={7: (6, 1.0, 0.0)}, exits={"killed": 2}))
    assert interval.error_share == 1.0
    assert interval.workers[7].requests_per_second == 3.0
    assert interval.workers[7].utilisation is None, "nobody lives in that slot"
    assert interval.exits == {"killed": 2}


def test_time_is_the_servers() -> None:
    assert between(page(uptime=100.0), page(uptime=101.5, requests={"200": 3}), 2.0).requests_per_second == 4.0


def test_the_same_page_twice_is_no_interval() -> None:
    assert Interval.between(snapshot(page()), snapshot(page(), 0.5)) is None


# -- quantiles: expected values were asked of Prometheus 2.42 ------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, {0.1: 10, 1.0: 10, math.inf: 10}, 0.05),
        (0.95, {0.1: 10, 1.0: 20, math.inf: 20}, 0.91),
        (0.5, {0.1: 0, 1.0: 10, math.inf: 10}, 0.55),
        (0.99, {0.1: 1, 1.0: 2, math.inf: 10}, 1.0),
        (0.5, {0.1: 0, 1.0: 0, math.inf: 10}, 1.0),
        (1.0, {0.1: 5, 1.0: 10, math.inf: 10}, 1.0),
        (0.5, {0.1: 0, 1.0: 0, math.inf: 0}, None),
        (0.5, {}, None),
    ],
)
def test_quantiles_are_those_of_promql(q: float, buckets: dict[float, float], expected: float | None) -> None:
    assert quantile(q, buckets) == (None if expected is None else pytest.approx(expected))


def test_quantiles_are_of_the_interval_only() -> None:
    interval = between(page(buckets=(1000, 1000, 1000)), page(uptime=102, buckets=(1000, 1010, 1010)))
    assert interval.p50 == pytest.approx(0.55)
    assert interval.longest_bound == 1.0


# -- history ---------------------------------------------------------------------------------------------------------


def test_history_keeps_a_minute_and_counts_exits_since_it_began() -> None:
    history = History()
    assert history.add(snapshot(page(uptime=0, exits={"killed": 5}))) is None
    for second in range(1, 91):
        killed = 5 + (second >= 30) + (second >= 80)
        text = page(uptime=second, requests={"200": second}, exits={"killed": killed, "timeout": int(second >= 80)})
        assert history.add(snapshot(text, second)) is not None
    assert [point.at for point in history.points] == [1000.0 + second for second in range(31, 91)]
    assert {point.requests_per_second for point in history.points} == {2.0}
    assert history.exits == {"killed": 2, "timeout": 1}
    assert {(event.at, event.cause, event.count) for event in history.events} == {
        (1080.0, "killed", 1),
        (1080.0, "timeout", 1),
        (1030.0, "killed", 1),
    }
    assert history.events[-1].at == 1030.0, "the last one first"


def test_a_repeated_page_changes_no_history() -> None:
    history = History()
    history.add(snapshot(page(uptime=1)))
    history.add(snapshot(page(uptime=2, requests={"200": 4}), 1.0))
    assert history.add(snapshot(page(uptime=2, requests={"200": 4}), 1.2)) is None
    assert len(history.points) == 1
    interval = history.add(snapshot(page(uptime=3, requests={"200": 5}), 2.0))
    assert interval is not None
    assert (interval.seconds, interval.requests) == (1.0, 2.0)


# -- JSON ------------------------------------------------------------------------------------------------------------


def watched(*, running: tuple[OpenRequest, ...] = ()) -> tuple[Snapshot, History]:
    details = Details(name="shop", application="shop:app", pids={1: 11}, running={1: running})
    history = History()
    history.add(snapshot(page(uptime=1), 0.0, details))
    last = snapshot(page(uptime=2, requests={"200": 4}, buckets=(8, 8, 8), exits={"oom": 1}), 1.0, details)
    history.add(last)
    return last, history


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for item in value.values() for key in keys_of(item)}
    return {key for item in value for key in keys_of(item)} if isinstance(value, list) else set()


def test_json_is_as_documented() -> None:
    last, history = watched(running=(OpenRequest(phase="writing", age=1.0, path="/a"),))
    read = json.loads(to_json(last, history, paths=True))
    documented = set(re.findall(r"\w+", to_json.__doc__ or ""))
    states_and_causes = {"idle", "busy", "oom"}
    assert keys_of(read) - documented - states_and_causes == set()
    assert read["schema"] == SCHEMA
    assert read["interval_seconds"] == 1.0
    assert read["now"]["requests_per_second"] == 8.0
    assert read["now"]["p50_seconds"] == pytest.approx(0.05)
    assert read["history"]["points"][0]["at_unix_seconds"] == 1001.0
    assert read["exits"]["since_watch"] == {"oom": 1}
    assert read["workers"][0]["pid"] == 11


def test_json_before_there_is_an_interval_is_strict() -> None:
    history = History()
    first = snapshot(page())
    history.add(first)
    read = json.loads(to_json(first, history), parse_constant=pytest.fail)
    assert (read["interval_seconds"], read["now"]["error_share"]) == (None, None)
    assert read["workers"][0]["requests_per_second"] is None
    assert set(read["now"]) == set(to_object(*watched())["now"])


def test_json_is_the_object_as_text_also_when_points_were_written_before() -> None:
    last, history = watched()
    for _ in range(2):
        assert to_json(last, history) == json.dumps(to_object(last, history), ensure_ascii=False, allow_nan=False)
    assert len(history.points) == 1


def test_json_tells_paths_when_asked_and_clients_never() -> None:
    request = OpenRequest(
        phase="application", age=0.5, method="GET", route="/u/<id>", path="/u/s3cret", client="10.9.8.7"
    )
    last, history = watched(running=(request,))
    assert "s3cret" not in to_json(last, history)
    told = to_object(last, history, paths=True)["workers"][0]["running"]
    assert told == [
        {"phase": "application", "method": "GET", "route": "/u/<id>", "path": "/u/s3cret", "age_seconds": 0.5}
    ]
    assert "10.9.8.7" not in to_json(last, history, paths=True)


def test_snapshots_of_another_bound_set_begin_anew() -> None:
    earlier = snapshot(page(buckets=(5, 5, 5)))
    later = replace(snapshot(page(uptime=102), 2.0), durations={0.5: 4.0, math.inf: 4.0})
    interval = Interval.between(earlier, later)
    assert interval is not None
    assert interval.p50 == pytest.approx(0.25)
