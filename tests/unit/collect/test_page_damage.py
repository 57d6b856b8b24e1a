"""The page over damaged files and changing owners: whole, bounded, and no counter ever sinks."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from promgun.collect.page import Collector
from promgun.metrics.catalog import CATALOG
from promgun.metrics.counters import Counters
from promgun.metrics.defaults import DURATION_BUCKETS, SIZE_BUCKETS
from promgun.metrics.label_sets import OVERFLOW
from promgun.metrics.recorder import Recorder
from promgun.store.board import SIZE as BOARD_SIZE
from promgun.store.board import Cell, Role
from promgun.store.master_info import MasterFacts, write_facts
from promgun.system.procfs import process_start
from tests.support.store_fixtures import (
    OBSTACLES,
    Opened,
    damaged_contents,
    master_of,
    opened,
    release,
    slots_of,
    worker,
)
from tests.unit.collect.test_page import FACTS, SECOND, of, page

# ---- damage


@pytest.mark.parametrize("kind", [*damaged_contents(b"x" * 64), *OBSTACLES])
@pytest.mark.parametrize(
    "name",
    [
        "slots/2",
        "slots/2.lock",
        "slots/2.counter",
        "slots/2.histogram",
        "slots/2.gauge_all",
        "master/m1",
        "master/m1.json",
        "master/m1.workers",
    ],
)
def test_no_bad_file_costs_the_page(place: Opened, recorder: Recorder, tmp_path: Path, name: str, kind: str) -> None:
    recorder.record("GET", "/a", 200, 0.5, 1, 1)
    if kind in OBSTACLES:
        OBSTACLES[kind](tmp_path / name)
    else:
        (tmp_path / name).write_bytes(damaged_contents(b"x" * 64)[kind])
    found = page(Collector(tmp_path))
    assert found["gunicorn_requests_total{method=GET,route=/a,status=200}"] == 1.0
    assert found["gunicorn_workers{state=alive}"] == 1.0
    assert place.store.number == 1


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
def test_no_wrong_bit_costs_the_page(place: Opened, recorder: Recorder, tmp_path: Path) -> None:
    recorder.record("GET", "/a", 200, 0.5, 1, 1)
    assert place.store._home is not None
    memory, end = place.store._home.rows.memory, place.store._home.rows.end
    random_ = random.Random(11)
    # every bit of label names, and a sample of all others
    start = bytes(memory[:end]).index(b'"method"')
    near = [(position, bit) for position in range(start, start + 16) for bit in range(8)]
    far = [(random_.randrange(BOARD_SIZE, end), random_.randrange(8)) for _ in range(60)]
    known = Collector(tmp_path)
    # Nobody's figures: they take longer than all the rest of a page.
    place.store.board.cells[Cell.PID] = 0
    for position, bit in near + far:
        memory[position] ^= 1 << bit
        readers = (known, Collector(tmp_path))
        found_by_each = [page(reader, strict=False) for reader in readers]
        memory[position] ^= 1 << bit
        for found in found_by_each:
            for key in found:
                spec = next(
                    (spec for spec in CATALOG if key.startswith((f"{spec.name}{{", f"{spec.name}_bucket{{"))), None
                )
                if spec is not None:
                    labels = {
                        pair.partition("=")[0] for pair in key.partition("{")[2].rstrip("}").split(",") if "=" in pair
                    }
                    assert labels <= {*spec.labels, "le"}


def test_boards_with_any_numbers_leave_the_page_whole(tmp_path: Path) -> None:
    random_ = random.Random(3)
    for round_ in range(30):
        with worker(tmp_path) as found:
            cells = found.store.board.cells
            for cell in range(Cell.ROLE + 1, 64):
                cells[cell] = random_.choice([0, -1, 1, 2**63 - 1, -(2**63), random_.getrandbits(40)])
            if round_ % 3 == 0:
                cells[Cell.PID] = random_.choice([-1, 0, 1, 2**62])
                cells[Cell.PROCESS_START] = process_start(1)
            page(Collector(tmp_path), strict=False)
        (slots_of(tmp_path) / "1").unlink()


def test_facts_with_any_content_leave_the_page_whole(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"gunicorn": 5},
        {"slot": {}},
        {"addresses": ["\ud800"]},
        {"max_label_sets": "x"},
        {"addresses": ["http://x", "", "unix:"]},
    ]
    with opened(tmp_path, Role.MASTER) as master:
        master.store.own_slot()
        master.store.flush()
        for change in changes:
            (master_of(tmp_path) / "m0.json").write_text(json.dumps(asdict(FACTS) | change))
            assert page(Collector(tmp_path))["gunicorn_up{}"] == 1.0


# ---- bounded, and only rising


def test_the_cap_holds_over_all_slots(place: Opened, recorder: Recorder, tmp_path: Path) -> None:
    assert place.store.directory is not None
    write_facts(place.store.directory, MasterFacts(**(asdict(FACTS) | {"max_label_sets": 20, "addresses": ()})))
    with worker(tmp_path) as other:
        second = Recorder(other.store, Counters(other.store, 1000), DURATION_BUCKETS, SIZE_BUCKETS)
        for n in range(30):
            recorder.record("GET", f"/a/{n}", 200, 0.5, 1, 1)
            second.record("GET", f"/b/{n}", 200, 0.5, 1, 1)
        found = page(Collector(tmp_path))
    requests = of(found, "gunicorn_requests_total")
    assert len(requests) == 21
    assert sum(requests.values()) == sum(of(found, "gunicorn_request_duration_seconds_count").values()) == 60.0
    assert requests[f"gunicorn_requests_total{{method=GET,route={OVERFLOW},status=200}}"] == 40.0
    assert {key.split("route=")[1].split(",")[0] for key in requests} == {
        OVERFLOW,
        *(f"/{slot}/{n}" for slot in "ab" for n in range(10)),
    }, "those that were born first"
    assert place.store.number == 1


def test_nothing_sinks_when_a_slot_changes_hands(
    place: Opened, recorder: Recorder, tmp_path: Path, heirs: contextlib.ExitStack
) -> None:
    recorder.record("GET", "/a", 200, 0.5, 1, 1)
    now = time.monotonic_ns()
    place.store.board.enter(now - 3 * SECOND)
    collector = Collector(tmp_path)
    last = page(collector)
    rising = {
        f"{spec.name}{suffix}"
        for spec in CATALOG
        if spec.kind != "gauge"
        for suffix in ("", "_bucket", "_sum", "_count")
    }
    heir = heirs.enter_context(opened(tmp_path, Role.WORKER))
    story: list[Callable[[], object]] = [
        lambda: release(place.store),
        heir.store.own_slot,
        lambda: heir.store.board.enter(now),
        lambda: heir.store.board.leave(now + SECOND),
    ]
    for step in story:
        step()
        found = page(collector)
        sunk = {
            key: (last[key], found.get(key))
            for key in last
            if key.partition("{")[0] in rising and found.get(key, last[key]) < last[key]
        }
        assert not sunk
        last = {**last, **found}
    assert heir.store.number == 1
