"""Values through prometheus_client's own metrics, of every kind and mode."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

import prometheus_client
import prometheus_client.values
import pytest
from prometheus_client import Counter, Gauge, Histogram, Summary

from promgun.store.board import Role
from promgun.store.exclusive import has_gil
from promgun.store.process import ProcessStore
from promgun.store.values import LockedSlotValue, value_class
from tests.support.store_fixtures import (
    Opened,
    opened,
    page_totals,
    release,
    stock_totals,
    use,
)

MODES: list[Any] = sorted(Gauge._MULTIPROC_MODES)


def counter(name: str = "c", *labels: str) -> Counter:
    return Counter(name, "Help.", labels, registry=None)


def test_the_class_fits_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_gil()
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert not has_gil()
    assert issubclass(value_class(ProcessStore().app.values), LockedSlotValue)
    monkeypatch.undo()
    assert not issubclass(value_class(ProcessStore().app.values), LockedSlotValue)


# ---- kinds


def test_counters(place: Opened, tmp_path: Path) -> None:
    plain, labelled = counter(), counter("l", "a", "b")
    plain.inc()
    plain.inc(2.5)
    labelled.labels("x", "y").inc(3)
    labelled.labels(a="x", b="z").inc(4)
    with pytest.raises(ValueError, match="non-negative"):
        plain.inc(-1)
    expected = {"c_total{}": 3.5, "l_total{a=x,b=y}": 3.0, "l_total{a=x,b=z}": 4.0}
    assert page_totals(tmp_path) == stock_totals(tmp_path) == expected
    assert plain._value.get() == 3.5
    assert place.store.number == 1


def test_histograms_and_summaries(place: Opened, tmp_path: Path) -> None:
    histogram = Histogram("h", "Help.", ["l"], registry=None, buckets=(0.1, 1, 10))
    summary = Summary("s", "Help.", registry=None)
    for amount in (0.05, 0.1, 0.5, 5, 50, 500):
        histogram.labels("x").observe(amount)
        summary.observe(amount)
    with summary.time():
        pass
    page = page_totals(tmp_path)
    buckets = {le: page[f"h_bucket{{l=x,le={le}}}"] for le in ("0.1", "1.0", "10.0", "+Inf")}
    assert buckets == {"0.1": 2.0, "1.0": 3.0, "10.0": 4.0, "+Inf": 6.0}
    assert page["h_count{l=x}"] == 6.0
    assert page["h_sum{l=x}"] == pytest.approx(555.65)
    assert page["s_count{}"] == 7.0
    assert page == stock_totals(tmp_path)
    assert place.store.number == 1


def in_stock_words(page: dict[str, float]) -> dict[str, float]:
    """Return what prometheus_client's own collector calls the gauges that each process has for itself."""
    return {key.replace("worker_id=", "pid=slot"): value for key, value in page.items()}


@pytest.mark.usefixtures("place")
def test_an_application_keeps_its_own_label_of_the_name_of_ours(tmp_path: Path) -> None:
    Gauge("plain", "Help.", registry=None).set(1)
    Gauge("taken", "Help.", ["worker_id"], registry=None).labels("crane").set(2)
    assert page_totals(tmp_path) == {"plain{worker_id=1}": 1.0, "taken{pid=1,worker_id=crane}": 2.0}


SETS = {"a": (2.0, 1.0, 3.0), "b": (-1.0, 0.0, -2.0)}
EXPECTED = {"min": (1.0, -2.0), "max": (3.0, 0.0), "sum": (6.0, -3.0), "mostrecent": (3.0, -2.0)}


@pytest.mark.parametrize("mode", MODES)
def test_gauges_in_every_mode(place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    """Three processes set the same gauge; then the third leaves, which has the least and the most."""
    with opened(tmp_path) as second, opened(tmp_path) as third:
        for position, process in enumerate((place, second, third)):
            use(process.store, monkeypatch)
            gauge = Gauge("g", "Help.", ["l"], registry=None, multiprocess_mode=mode)
            for label, amounts in SETS.items():
                gauge.labels(label).set(99)
                gauge.labels(label).set(amounts[position])
        page = page_totals(tmp_path)
        assert in_stock_words(page) == stock_totals(tmp_path)
        if mode in {"all", "liveall"}:
            expected = {
                f"g{{l={label},worker_id={slot}}}": amount
                for label, amounts in SETS.items()
                for slot, amount in enumerate(amounts, start=1)
            }
        else:
            expected = {
                f"g{{l={label}}}": amount
                for label, amount in zip("ab", EXPECTED[mode.removeprefix("live")], strict=True)
            }
        assert page == expected
        release(third.store)
        with opened(tmp_path, Role.WORKER) as heir:
            assert heir.store.own_slot() == 3
        left = page_totals(tmp_path)
        assert in_stock_words(left) == stock_totals(tmp_path)
        if mode.startswith("live"):
            assert left != page
        else:
            assert left == page


def test_inc_and_dec_of_a_gauge(place: Opened, tmp_path: Path) -> None:
    gauge = Gauge("g", "Help.", registry=None, multiprocess_mode="livesum")
    gauge.inc(5)
    gauge.dec(2)
    with gauge.track_inprogress():
        assert page_totals(tmp_path) == {"g{}": 4.0}
    gauge.set_to_current_time()
    assert place.store.number == 1
    assert page_totals(tmp_path)["g{}"] == pytest.approx(time.time(), abs=60)


def test_exemplars_are_taken_and_dropped_as_upstream_does(place: Opened, tmp_path: Path) -> None:
    plain = counter()
    plain.inc(1, exemplar={"trace": "abc"})
    assert plain._value.get_exemplar() is None
    assert page_totals(tmp_path) == {"c_total{}": 1.0}
    assert place.store.number == 1


@pytest.mark.parametrize("label", ['"', "\\", "\n", "\0", "ü", "\ud800", "x" * 65536, "]", ""])
def test_any_label_text(place: Opened, tmp_path: Path, label: str) -> None:
    counter("c", "l").labels(label).inc()
    shown = label.encode("utf-8", "replace").decode()
    assert page_totals(tmp_path) == {f"c_total{{l={shown}}}": 1.0}
    assert place.store.number == 1


def test_a_label_beyond_all_bounds_stays_in_memory(place: Opened, tmp_path: Path) -> None:
    huge = counter("c", "l").labels("x" * (1 << 20))
    fine = counter("d")
    huge.inc(3)
    fine.inc()
    place.retry()
    assert huge._value.get() == 3.0
    assert page_totals(tmp_path) == stock_totals(tmp_path) == {"d_total{}": 1.0}


def test_a_removed_label_set_goes_on_where_it_was(place: Opened, tmp_path: Path) -> None:
    labelled = counter("c", "l")
    labelled.labels("x").inc(2)
    with pytest.warns(UserWarning, match="multi-process"):
        labelled.remove("x")
    gc.collect()
    assert not place.store.app.values._values
    labelled.labels("x").inc(3)
    assert page_totals(tmp_path) == {"c_total{l=x}": 5.0}


def test_the_next_owner_of_the_slot_counts_on(place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter().inc(2)
    Gauge("g", "Help.", registry=None, multiprocess_mode="livesum").set(7)
    Gauge("k", "Help.", registry=None, multiprocess_mode="max").set(7)
    release(place.store)
    with opened(tmp_path) as heir:
        use(heir.store, monkeypatch)
        counter().inc(3)
        assert page_totals(tmp_path) == stock_totals(tmp_path) == {"c_total{}": 5.0, "k{}": 7.0}
        assert heir.store.number == 1


def test_the_process_has_the_values_it_was_given() -> None:
    assert prometheus_client.values.ValueClass.__name__ in {"MutexValue", "MultiProcessValue", "MmapedValue"}
    assert os.environ.get("PROMETHEUS_MULTIPROC_DIR") is None
