"""The page: complete from the start, the same families whatever stands in the store, and never missing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from promgun.collect.page import Collector
from promgun.collect.slot_owners import worker_state
from promgun.metrics.catalog import BY_NAME, CATALOG
from promgun.metrics.families.requests import REQUEST_CPU_SECONDS
from promgun.metrics.label_sets import FREE_LABELS
from promgun.metrics.label_values import StoreErrorReason
from promgun.metrics.late_label_values import WorkerState
from promgun.metrics.recorder import Recorder
from promgun.store import format as fmt
from promgun.store.board import BoardView, Cell, Role
from promgun.store.master_info import MasterFacts, write_facts
from promgun.store.values import value_class
from tests.support.store_fixtures import (
    Opened,
    master_of,
    open_directory,
    opened,
    samples,
    slots_of,
    worker,
    write_file,
)

FACTS = MasterFacts(
    slot=0,
    pid=os.getpid(),
    started=1000.0,
    name="shop",
    application="shop:app",
    worker_type="sync",
    gunicorn="27.0.1",
    promgun="0.1.0",
    addresses=("http://127.0.0.1:8000",),
)
SECOND = 1_000_000_000


class Page:
    """What the encoders read."""

    def __init__(self, families: Any) -> None:
        self._families = families

    def collect(self) -> Any:
        """Give the families."""
        return self._families


def page(collector: Collector, *, strict: bool = True) -> dict[str, float]:
    """Return the samples of a page, after both encoders have written it and independent parsers have read it.

    The strict one is that of OpenMetrics, which takes no counter that is negative or NaN.
    """
    families = collector.collect()
    text = generate_latest(Page(families)).decode()
    openmetrics = generate_openmetrics(Page(families)).decode()  # type: ignore[no-untyped-call] # upstream
    found = samples(parse_text(text))
    assert len(found) == sum(len(family.samples) for family in families)
    if strict:
        assert samples(parse_openmetrics(openmetrics)) == found  # type: ignore[no-untyped-call] # upstream
    return found


def of(found: dict[str, float], name: str) -> dict[str, float]:
    """Return the samples of one name."""
    return {key: value for key, value in found.items() if key.partition("{")[0] == name}


def leave_dead_slot(path: Path) -> None:
    """Leave a slot behind whose board was signed by a process that is gone."""
    with worker(path) as dead:
        with subprocess.Popen([sys.executable, "-c", ""]) as gone:
            gone.wait()
        dead.store.board.cells[Cell.PID] = gone.pid


# ---- complete


def test_an_empty_store_has_a_page(tmp_path: Path) -> None:
    found = page(Collector(tmp_path))
    assert found["gunicorn_up{}"] == 0.0
    assert found["promgun_store_slots{}"] == 0.0


def test_a_store_that_is_gone_has_a_page(tmp_path: Path) -> None:
    assert page(Collector(tmp_path / "gone"))["gunicorn_up{}"] == 0.0


def test_a_run_that_begins_after_its_sidecar_is_found(tmp_path: Path) -> None:
    """``metrics serve --dir DIR`` beside ``run --metrics-dir DIR``."""
    collector = Collector(tmp_path)
    assert page(collector)["gunicorn_workers{state=alive}"] == 0.0
    with worker(tmp_path / ".promgun") as found:
        found.store.board.cells[Cell.BOOTED] = 5
        assert collector.worker_booted()
        assert page(collector)["gunicorn_workers{state=alive}"] == 1.0
        assert len(collector.read().workers) == 1


def test_closed_sets_are_there_from_the_start(tmp_path: Path) -> None:
    found = page(Collector(tmp_path))
    for spec in CATALOG:
        if (
            spec.kind != "counter"
            or spec.group in {"workers", "listeners", "endpoint"}
            or set(spec.labels) - set(spec.closed)
        ):
            continue
        expected = 1
        for values in spec.closed.values():
            expected *= len(values)
        assert len(of(found, spec.name)) == expected, spec.name
        assert set(of(found, spec.name).values()) == {0.0}
    folded = of(found, "promgun_label_sets_folded_total")
    assert set(folded) == {
        f"promgun_label_sets_folded_total{{family={spec.name}}}"
        for spec in CATALOG
        if spec.kind == "counter" and FREE_LABELS & set(spec.labels) and spec is not REQUEST_CPU_SECONDS
    }


def test_families_come_in_the_order_of_the_catalogue_then_the_applications(place: Opened, recorder: Recorder) -> None:
    recorder.record("GET", "", 200, 0.5, 1, 1)
    values = value_class(place.store.app.values)
    for name in ("zoo", "apes"):
        values("counter", name, f"{name}_total", (), (), "Help.")
    assert place.store.directory is not None
    names = [family.name for family in Collector(place.store.directory.path).collect()]
    catalogue = [spec.family for spec in CATALOG if spec.family in names]
    assert names == [*catalogue, "apes", "zoo"]


def test_every_sample_of_ours_is_as_the_contract_says(place: Opened, recorder: Recorder, tmp_path: Path) -> None:
    recorder.record("GET", "/a", 200, 0.5, 1, 1)
    with opened(tmp_path, Role.MASTER) as master:
        master.store.own_slot()
        master.store.flush()
        assert master.store.directory is not None
        write_facts(master.store.directory, MasterFacts(**(asdict(FACTS) | {"addresses": ()})))
        families = {family.name: family for family in Collector(tmp_path).collect()}
    for spec in CATALOG:
        family = families.get(spec.family)
        if family is None:
            continue
        assert (family.type, family.documentation) == (spec.kind, spec.help)
        for sample in family.samples:
            extra = {"le"} if sample.name.endswith("_bucket") else set()
            assert set(sample.labels) == {*spec.labels, *extra}, sample
            assert sample.name.startswith(spec.family)
            for label, allowed in spec.closed.items():
                assert sample.labels[label] in allowed
    assert "gunicorn_info" in families
    assert families["gunicorn_worker_state"].samples
    assert place.store.number == 1


# ---- workers and masters


def view(**cells: int) -> BoardView:
    held = [0] * 64
    for name, value in cells.items():
        held[getattr(Cell, name)] = value
    return BoardView(0, tuple(held))


@pytest.mark.parametrize(
    ("cells", "state"),
    [
        ({}, "booting"),
        ({"BOOTED": 1, "HEARTBEAT": 100}, "idle"),
        ({"BOOTED": 1, "HEARTBEAT": 100, "BEYOND_TABLE": 2}, "busy"),
        ({"BOOTED": 1, "HEARTBEAT": 100, "BEYOND_TABLE": 2, "DRAINING": 1}, "draining"),
        ({"BOOTED": 1, "HEARTBEAT": 100, "BEYOND_TABLE": 2, "TIMEOUT": 900}, "busy"),
        ({"BOOTED": 1, "HEARTBEAT": 100, "BEYOND_TABLE": 2, "TIMEOUT": 700}, "hung"),
        ({"BOOTED": 1, "HEARTBEAT": 0, "DRAINING": 1, "TIMEOUT": 2}, "hung"),
        ({"BOOTED": 1, "HEARTBEAT": 0}, "idle"),
    ],
)
def test_a_worker_is_in_one_state(cells: dict[str, int], state: str) -> None:
    assert worker_state(view(**cells), 500) == state


def test_a_worker_is_shown_by_its_slot(place: Opened, recorder: Recorder, tmp_path: Path) -> None:
    now = time.monotonic_ns()
    board = place.store.board
    board.cells[Cell.BOOTED] = board.cells[Cell.HEARTBEAT] = now
    board.cells[Cell.CAPACITY], board.cells[Cell.MAX_REQUESTS], board.cells[Cell.SERVED] = 4, 100, 30
    board.enter(now - 2 * SECOND)
    recorder.record("GET", "", 200, 0.5, 1, 1)
    found = page(Collector(tmp_path))
    worker = "{worker_id=1}"
    assert found[f"gunicorn_worker_requests_in_progress{worker}"] == 1.0
    assert found[f"gunicorn_worker_capacity{worker}"] == 4.0
    assert found[f"gunicorn_worker_requests_left{worker}"] == 70.0
    assert found[f"gunicorn_worker_requests_total{worker}"] == 1.0
    assert 2.0 <= found[f"gunicorn_worker_busy_seconds_total{worker}"] < 60.0
    states = of(found, "gunicorn_worker_state")
    assert {key: value for key, value in states.items() if value} == {
        "gunicorn_worker_state{state=busy,worker_id=1}": 1.0
    }
    assert len(states) == len(WorkerState)
    assert found["gunicorn_workers{state=alive}"] == found["gunicorn_workers{state=booted}"] == 1.0
    assert found[f"gunicorn_worker_resident_memory_bytes{worker}"] > 1 << 20


def test_the_dead_are_not_shown_as_living(place: Opened, tmp_path: Path) -> None:
    leave_dead_slot(tmp_path)
    found = page(Collector(tmp_path))
    assert found["gunicorn_workers{state=alive}"] == 1.0
    assert not any("state=" in key and "worker_id=2" in key for key in found)
    assert place.store.number == 1


def test_live_gauges_of_the_dead_are_not_shown(place: Opened, tmp_path: Path) -> None:
    key = fmt.series_key("g", "g", {}, "Help.")
    leave_dead_slot(tmp_path)
    for slot, value in ((1, 2.0), (2, 40.0), (7, 800.0)):
        write_file(slots_of(tmp_path) / f"{slot}.gauge_livesum", {key: value})
    assert page(Collector(tmp_path))["g{}"] == 2.0
    assert place.store.number == 1


def test_the_master_and_its_facts(tmp_path: Path) -> None:
    with opened(tmp_path, Role.MASTER) as master:
        master.store.own_slot()
        master.store.board.cells[Cell.TARGET] = 3
        master.store.flush()
        assert master.store.directory is not None
        write_facts(master.store.directory, FACTS)
        collector = Collector(tmp_path)
        assert collector.master_alive()
        assert not collector.worker_booted()
        found = page(collector)
        assert found["gunicorn_up{}"] == 1.0
        assert found["gunicorn_workers{state=target}"] == 3.0
        ((info, value),) = of(found, "gunicorn_info").items()
        assert value == 1.0
        assert "gunicorn=27.0.1" in info
        assert "worker_type=sync" in info
        with worker(tmp_path) as first:
            assert not collector.worker_booted()
            first.store.board.cells[Cell.BOOTED] = 5
            assert collector.worker_booted()
        (master_of(tmp_path) / "m0.json").write_text('{"gunicorn": 5')
        assert not of(page(collector), "gunicorn_info")


# ---- counted trouble


def test_errors_of_every_slot_are_added_up(place: Opened, tmp_path: Path) -> None:
    place.store.board.cells[Cell.ERRORS_NO_SPACE] = 3
    with worker(tmp_path) as other:
        other.store.board.cells[Cell.ERRORS_NO_SPACE] = 4
        other.store.board.cells[Cell.ERRORS_PERMISSION] = 2
        other.store.board.cells[Cell.ERRORS_CORRUPT] = 1
    (slots_of(tmp_path) / "9.counter").write_bytes(b"garbage" * 100)
    found = of(page(Collector(tmp_path)), "promgun_store_errors_total")
    assert found == {
        f"promgun_store_errors_total{{reason={reason}}}": value
        for reason, value in zip(StoreErrorReason, (7, 2, 0, 2), strict=True)
    }


def test_a_damaged_file_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    collector = Collector(tmp_path, told.append)
    open_directory(tmp_path).close()
    (slots_of(tmp_path) / "1.counter").write_bytes(b"garbage" * 100)
    for _ in range(3):
        page(collector)
    assert len(told) == 1
    assert "1.counter" in told[0]


def test_a_family_that_cannot_be_shown_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("prometheus_client.validation") is not None:
        # 0.21 knows no other names than the legacy ones.
        monkeypatch.setattr("prometheus_client.validation._legacy_validation", True)
    told: list[str] = []
    collector = Collector(tmp_path, told.append)
    open_directory(tmp_path).close()
    write_file(
        slots_of(tmp_path) / "1.gauge_max", {fmt.series_key(name, name, {}, ""): 1.0 for name in ("a b", "fine")}
    )
    for _ in range(3):
        assert page(collector)["fine{}"] == 1.0
    assert len(told) == 1
    assert "'a b'" in told[0]


def test_the_size_of_the_store(place: Opened, recorder: Recorder, tmp_path: Path) -> None:
    recorder.record("GET", "", 200, 0.5, 1, 1)
    value_class(place.store.app.values)("counter", "c", "c_total", (), (), "Help.").inc(1)
    found = page(Collector(tmp_path))
    assert found["promgun_store_files{}"] == 2.0
    sizes = [(slots_of(tmp_path) / name).stat() for name in ("1", "1.counter")]
    assert found["promgun_store_bytes{}"] == sizes[0].st_blocks * 512 + sizes[1].st_size
    assert found["promgun_store_bytes{}"] < 64 << 10
    assert found["promgun_store_slots{}"] == 1.0
    assert place.store.number == 1


# ---- the application's


@pytest.mark.parametrize("kind", ["counter", "gauge", "histogram", "summary"])
@pytest.mark.parametrize(
    "name", ["gunicorn_requests_total", "gunicorn_up", "gunicorn_request_duration_seconds", "gunicorn_worker_state"]
)
def test_what_the_application_puts_under_our_names_is_not_shown(
    place: Opened, recorder: Recorder, tmp_path: Path, kind: str, name: str
) -> None:
    recorder.record("GET", "", 200, 0.5, 1, 1)
    collector = Collector(tmp_path)
    before = page(collector)
    family = BY_NAME[name].family
    suffix = {"counter": "_total", "gauge": "", "histogram": "_sum", "summary": "_sum"}[kind]
    made = value_class(place.store.app.values)(
        kind, family, f"{family}{suffix}", ("mine",), ("x",), "Mine.", multiprocess_mode="max"
    )
    made.inc(5.0)
    after = page(collector)
    assert {key: value for key, value in after.items() if key.startswith(family)}.keys() == {
        key: value for key, value in before.items() if key.startswith(family)
    }.keys()
    assert not any("mine=" in key for key in after)


def test_two_metrics_of_one_name_are_told_once_and_are_no_damage(place: Opened, tmp_path: Path) -> None:
    told: list[str] = []
    collector = Collector(tmp_path, told.append)
    made = value_class(place.store.app.values)
    for kind, family, sample in (
        ("gauge", "gunicorn_requests_total", "gunicorn_requests_total"),
        ("counter", "gunicorn_workers", "gunicorn_workers_total"),
        ("counter", "dup", "dup_total"),
        ("gauge", "dup_total", "dup_total"),
    ):
        made(kind, family, sample, (), (), "Mine.", multiprocess_mode="max").inc(7.0)
    for _ in range(3):
        found = page(collector)
        assert found["dup_total{}"] == 7
        assert set(of(found, "promgun_store_errors_total").values()) == {0}
    assert told == [
        f"The application's metric {name!r} is not on the page: {whose} {other!r} has a sample of the same name"
        for name, whose, other in (
            ("dup_total", "the application's metric", "dup"),
            ("gunicorn_requests_total", "promgun's own metric", "gunicorn_requests"),
            ("gunicorn_workers", "promgun's own metric", "gunicorn_workers"),
        )
    ]


@pytest.mark.parametrize("text", ["\ud800", "\udfff\ud800", "\0", "\n", '"', "\\", "ü", "x" * 65536])
def test_any_text_of_the_application_leaves_the_page_whole(place: Opened, tmp_path: Path, text: str) -> None:
    values = value_class(place.store.app.values)
    values("counter", "c", "c_total", ("l",), (text,), text).inc(1)
    values("gauge", "g", "g", ("l",), (text,), text, multiprocess_mode="all").set(2)
    values("histogram", "h", "h_sum", ("l",), (text,), text).inc(3)
    found = page(Collector(tmp_path))
    assert sum(of(found, "c_total").values()) == 1.0
    assert sum(of(found, "g").values()) == 2.0
    assert sum(of(found, "h_sum").values()) == 3.0


def test_names_in_utf_8_leave_the_page_whole(place: Opened, tmp_path: Path) -> None:
    values = value_class(place.store.app.values)
    values("counter", "http.server.größe", "http.server.größe_total", ("a.b",), ("x",), "Help.").inc(1)
    families = Collector(tmp_path).collect()
    text = generate_latest(Page(families)).decode()
    assert any(
        sample.value == 1.0 for family in parse_text(text) for sample in family.samples if "http_server" in sample.name
    )
