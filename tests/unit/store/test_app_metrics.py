"""Definitions, infos and enums of the application's metrics: written whole, newest shown, bounded through any lives."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Enum, Gauge, Info

from promgun.store import definition_rows
from promgun.store.app_metrics import AppMetrics
from promgun.store.board import Cell, Role
from promgun.store.definitions import ENUM, INFO, SCHEMA, Definition, parse_definition, spell
from promgun.store.reader import StoreReader
from tests.support.store_fixtures import Opened, boards, in_fresh_interpreter, opened, published, totals

BUCKETS = ("0.1", "1.0", "+Inf")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Opened]:
    with opened(tmp_path, Role.WORKER) as found:
        yield found


def definitions(place: Opened) -> list[Definition]:
    """Return the definitions in the slot, in the order in which their rows were made."""
    found = [parse_definition(text) for (text,) in place.store.row_values(SCHEMA)]
    return [definition for definition in found if definition is not None]


def histogram(app: AppMetrics, *bounds: str, names: tuple[str, ...] = ()) -> None:
    """Define a histogram as prometheus_client does: the sum, then bucket by bucket."""
    app.define("histogram", "h", names, ("x",) * len(names), "Help.")
    for bound in bounds:
        app.define("histogram", "h", (*names, "le"), (*("x",) * len(names), bound), "Help.")


def info(told: dict[str, str], name: str = "build", **labels: str) -> Info:
    made = Info(name, "Help.", list(labels), registry=None)
    child = made.labels(**labels) if labels else made
    child.info(told)
    return child


# ---- definitions


def test_no_histogram_is_written_half_way(place: Opened) -> None:
    app = place.store.app.metrics
    app.define("histogram", "h", (), (), "Help.")
    for bound in BUCKETS:
        app.tick()
        assert definitions(place) == []
        app.define("histogram", "h", ("le",), (bound,), "Help.")
    app.tick()
    assert [found.bounds for found in definitions(place)] == [(0.1, 1.0)]


def test_two_threads_make_one_histogram_each_whole(place: Opened) -> None:
    app = place.store.app.metrics
    app.define("histogram", "h", ("le",), ("0.1",), "Help.")
    other = threading.Thread(target=histogram, args=(app, "5.0", "+Inf"))
    other.start()
    other.join()
    app.tick()
    assert [found.bounds for found in definitions(place)] == [(5.0,)], "the other's first bucket is not here yet"
    app.define("histogram", "h", ("le",), ("1.0",), "Help.")
    app.define("histogram", "h", ("le",), ("+Inf",), "Help.")
    app.tick()
    assert [found.bounds for found in definitions(place)] == [(5.0,), (0.1, 1.0, 5.0)]


def newest(path: Path) -> dict[str, Definition]:
    """Return what a page goes by."""
    reader = StoreReader(path)
    reader.read(lambda *_: {})
    return reader._app.newest


def test_a_changed_definition_is_the_newest(place: Opened, tmp_path: Path) -> None:
    app = place.store.app.metrics
    histogram(app, *BUCKETS, names=("a",))
    app.tick()
    assert newest(tmp_path)["h"].names == ("a",)
    histogram(app, "0.5", "+Inf", names=("b",))
    app.tick()
    found = newest(tmp_path)["h"]
    assert (found.names, found.bounds) == (None, (0.1, 0.5, 1.0))
    app.define("counter", "h", (), (), "Help.")
    app.tick()
    assert newest(tmp_path)["h"].kind == "counter"


def test_a_change_while_a_definition_is_written_is_written_next(
    place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = place.store.app.metrics
    app.define("counter", "c", ("a",), ("x",), "Help.")
    real = app._rows.place

    def change_meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(app._rows, "place", real)
        app.define("counter", "c", ("b",), ("x",), "Help.")
        return real(*arguments)

    monkeypatch.setattr(app._rows, "place", change_meanwhile)
    app.tick()
    app.tick()
    assert newest(tmp_path)["c"].names is None


def _two_registries(path: str) -> dict[str, float]:
    from prometheus_client import Counter, Histogram  # noqa: PLC0415 - after the value class was set

    store = published(path, Role.WORKER)
    one, two = CollectorRegistry(), CollectorRegistry()
    Counter("c", "Help.", ["a"], registry=one).labels("x").inc()
    Histogram("h", "Help.", buckets=(1, 2), registry=one).observe(1.5)
    store.app.tick()
    Counter("c", "Help.", ["b"], registry=two).labels("y").inc(2)
    Histogram("h", "Help.", ["k"], buckets=(5,), registry=two).labels("z").observe(4)
    store.app.tick()
    return totals(Path(path))


def test_two_registries_with_one_name_are_both_shown(tmp_path: Path) -> None:
    page = in_fresh_interpreter(_two_registries, tmp_path)
    assert page["c_total{a=x}"] == 1
    assert page["c_total{b=y}"] == 2
    assert page["h_bucket{le=2.0}"] == 1
    assert page["h_bucket{k=z,le=5.0}"] == 1


#: Names of labels that this package gives a meaning of its own.
NAMES = (["le"], ["pid", "le"], ["pid"], ["worker_id"], ["worker_id", "pid"], ["promgun_worker_id"])
ALL_NAMES = ["worker_id", "pid", "promgun_worker_id", "le"]


def _labels_of_any_name(path: str) -> dict[str, float]:
    from prometheus_client import Counter, Gauge, Histogram, Summary  # noqa: PLC0415 - after the value class was set

    store = published(path, Role.WORKER)
    for number, names in enumerate((*NAMES, ALL_NAMES)):
        values = [f"x{position}" for position in range(len(names))]
        Counter(f"c{number}", "Help.", names).labels(*values).inc()
        Summary(f"s{number}", "Help.", names).labels(*values).observe(1)
        Gauge(f"all{number}", "Help.", names).labels(*values).set(1)
        Gauge(f"max{number}", "Help.", names, multiprocess_mode="max").labels(*values).set(1)
        if "le" not in names:
            Histogram(f"h{number}", "Help.", names, buckets=(1, 2)).labels(*values).observe(1)
    store.app.tick()
    return totals(Path(path))


def test_a_label_of_any_name_is_shown(tmp_path: Path) -> None:
    """``le`` is an ordinary label of all but histograms; the label of the process finds a name that is free."""
    page = in_fresh_interpreter(_labels_of_any_name, tmp_path)
    for name in ("c0_total{le=x0}", "s0_count{le=x0}", "max0{le=x0}", "c1_total{le=x1,pid=x0}"):
        assert page[name] == 1
    assert page["h4_bucket{le=1.0,pid=x1,worker_id=x0}"] == 1
    assert page["all0{le=x0,worker_id=1}"] == 1
    assert page["all3{pid=1,worker_id=x0}"] == 1
    assert page["all4{pid=x1,promgun_worker_id=1,worker_id=x0}"] == 1
    assert page["all5{promgun_worker_id=x0,worker_id=1}"] == 1
    assert page["all6{le=x3,pid=x1,promgun_worker_id=x2,promgun_worker_id_=1,worker_id=x0}"] == 1


# ---- infos and enums


def test_an_info_and_an_enum_are_shown(place: Opened, tmp_path: Path) -> None:
    app = place.store.app.metrics
    app.watch(info({"version": "1", "über": "no label"}))  # a key that is no label leaves the info out
    build = info({"version": "2"}, "built")
    state = Enum("state", "Help.", states=["up", "down"], registry=None)
    for metric in (build, state):
        app.watch(metric)
    page = totals(tmp_path)
    assert page == {"built_info{version=2}": 1, "state{state=up}": 1, "state{state=down}": 0}
    state.state("down")
    app.watch(state)
    build.info({"version": "3"})
    app.watch(build)
    assert totals(tmp_path) == {"built_info{version=3}": 1, "state{state=up}": 0, "state{state=down}": 1}


def test_an_enum_that_has_no_states_yet_is_written_once_it_has(place: Opened, tmp_path: Path) -> None:
    state = Enum("state", "Help.", states=["up", "down"], registry=None)
    states = state._states
    del state._states
    place.store.app.metrics.watch(state)
    place.store.app.tick()
    assert totals(tmp_path) == {}
    state._states = states
    place.store.app.tick()
    assert totals(tmp_path) == {"state{state=up}": 1, "state{state=down}": 0}


def test_one_metric_that_cannot_be_read_leaves_the_others(place: Opened, tmp_path: Path) -> None:
    app = place.store.app.metrics
    broken, good = info({"a": "b"}, "broken"), info({"a": "b"}, "good")
    app.watch(broken)
    del broken._documentation
    app.watch(good)
    place.store.app.detach()
    app.tick()
    assert totals(tmp_path)["good_info{a=b}"] == 1
    assert sum("cannot be stored" in text for text in place.warnings.texts) == 1


def test_infos_that_differ_in_each_life_do_not_fill_the_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More lives than there are rows, each with texts of its own; the newest is shown, and new metrics find room."""
    monkeypatch.setattr(definition_rows, "MOST_ROWS", 100)
    reader = StoreReader(tmp_path)
    for life in range(110):
        with opened(tmp_path, Role.WORKER) as place:
            started = info({"id": f"{life:016x}"}, "started")
            labelled = info({"id": "x"}, "worker", pid=f"{life}")
            place.store.app.metrics.watch(started)
            place.store.app.metrics.watch(labelled)
            rows = len(place.store.row_values(SCHEMA))
            assert rows <= definition_rows.MOST_ROWS // 2
            if life % 10 == 9:
                page = totals(tmp_path, reader)
                assert page[f"started_info{{id={life:016x}}}"] == 1
                assert sum(key.startswith("started") for key in page) == 1
                assert page[f"worker_info{{id=x,pid={life}}}"] == 1
            assert not place.warnings.texts
    with opened(tmp_path, Role.WORKER) as place:
        for number in range(40):
            place.store.app.metrics.define("counter", f"c{number}", (), (), "Help.")
        place.store.app.tick()
        assert sum(found.kind == "counter" for found in definitions(place)) == 40
        assert not place.warnings.texts


def test_an_info_of_this_process_is_never_given_away(place: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definition_rows, "MOST_ROWS", 40)
    kept = [info({"n": str(number)}, f"kept{number}") for number in range(25)]
    for metric in kept:
        place.store.app.metrics.watch(metric)
    assert {found.family for found in definitions(place)} == {f"kept{number}" for number in range(20)}
    assert len(place.warnings.texts) == 1
    del kept[:5]
    place.store.app.tick()
    assert {found.family for found in definitions(place)} == {f"kept{number}" for number in range(5, 25)}


def test_a_longer_text_finds_room_behind_many_short_ones(place: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definition_rows, "MOST_ROWS", 100)
    kept = [info({"n": str(number)}, f"kept{number}") for number in range(60)]
    kept.append(info({"n": "x" * 1000}, "long"))
    for metric in kept:
        place.store.app.metrics.watch(metric)
    assert "long" in {found.family for found in definitions(place)}


def test_a_definition_without_space_is_written_later_and_counted_once(
    place: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = place.store.app.metrics
    state = Enum("state", "Help.", states=["up", "down"], registry=None)
    state.state("down")
    app.watch(state)
    with monkeypatch.context() as patched:
        patched.setattr(place.store.in_files, "row", lambda *_: _refuse())
        app.detach()
        state.state("up")
        app.watch(state)
        for _ in range(3):
            app.tick()
    app.tick()
    assert totals(tmp_path) == {"state{state=up}": 1, "state{state=down}": 0}
    (board,) = (view for view in boards(tmp_path) if view.slot > 0)
    assert board[Cell.ERRORS_NO_SPACE] == 1


def _refuse() -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_gauge_with_a_function_is_asked_and_one_that_raises_is_logged_once(place: Opened) -> None:
    gauge = Gauge("g", "Help.", registry=None)
    answers: list[Any] = [5.0]
    gauge.set_function(lambda: answers[0])
    place.store.app.metrics.watch(gauge)
    place.store.app.tick()
    assert gauge._value.get() == 5.0
    answers[0] = None
    for _ in range(2):
        place.store.app.tick()
    assert [text for text in place.warnings.texts if "'g'" in text] == place.warnings.texts
    assert len(place.warnings.texts) == 1


def _raise(error: BaseException) -> float:
    raise error


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), type("Timeout", (BaseException,), {})("5 s")])
def test_whatever_a_gauges_function_raises_leaves_the_worker(place: Opened, error: BaseException) -> None:
    gauge, other = Gauge("g", "Help.", registry=None), Gauge("other", "Help.", registry=None)
    gauge.set_function(lambda: _raise(error))
    other.set_function(lambda: 2.0)
    for metric in (gauge, other):
        place.store.app.metrics.watch(metric)
    for _ in range(2):
        place.store.app.tick()
    assert other._value.get() == 2.0
    (text,) = place.warnings.texts
    assert f"'g' raised {type(error).__name__}" in text


def _end(*_: Any) -> None:
    sys.exit(3)


def _wait_for_the_signal() -> float:
    os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(5)
    return 1.0


@pytest.mark.parametrize(("handler", "raised"), [(_end, SystemExit), (signal.default_int_handler, KeyboardInterrupt)])
def test_what_a_signal_raises_into_a_gauges_function_ends_the_worker(
    place: Opened, handler: Any, raised: type[BaseException]
) -> None:
    gauge = Gauge("g", "Help.", registry=None)
    gauge.set_function(_wait_for_the_signal)
    place.store.app.metrics.watch(gauge)
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with pytest.raises(raised):
            place.store.app.tick()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert not place.warnings.texts


def test_a_worker_that_quits_in_a_greenlet_ends_from_a_gauges_function(place: Opened) -> None:
    """The hub throws the greenlet's SystemExit into the main loop: no handler is in its traceback."""
    gauge = Gauge("g", "Help.", registry=None)
    gauge.set_function(lambda: _raise(SystemExit(0)))
    place.store.app.metrics.watch(gauge)
    place.store.worker_quits = True
    with pytest.raises(SystemExit):
        place.store.app.tick()


def test_whoever_is_no_worker_writes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, Role.OTHER) as place:
        place.store.app.metrics.watch(info({"a": "b"}))
        place.store.app.tick()
        assert totals(tmp_path) == {}


# ---- definitions as text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " " * 134,
        "{}",
        "[]",
        '["counter","c","h",["a"]]',
        '["counter","a b","h",["a"],[]]',
        '["counter",1,"h",["a"],[]]',
        '["info","i","h",{},{"__name__":"x"}]',
        '["info","i","h",{"":"x"},{}]',
        '["info","i","h",[],{}]',
        '["stateset","e","h",{},[1]]',
        '["histogram","h","h",[],["a"]]',
        "[" * 3000,
    ],
)
def test_what_is_no_definition_is_none(text: str) -> None:
    assert parse_definition(text) is None


def test_a_definition_is_read_as_it_was_spelled() -> None:
    text = spell(INFO, "build", "Help.", {"b": "1", "a": "\udc80"}, {"version": "é"})
    assert text is not None
    assert parse_definition(definition_rows.padded(text)) == Definition(
        INFO, "build", "Help.", ("a", "b"), (("b", "1"), ("a", "?")), content=(("version", "é"),)
    )
    text = spell(ENUM, "state", "Help.", {}, ["up", "down"])
    assert text is not None
    assert parse_definition(text) == Definition(ENUM, "state", "Help.", states=("up", "down"))
    text = spell("histogram", "h", "Help.", None, [2.0, 1.0])
    assert text is not None
    assert parse_definition(text) == Definition("histogram", "h", "Help.", None, bounds=(1.0, 2.0))
    assert spell(INFO, "build", "x" * 5000, {}, {}) is None
