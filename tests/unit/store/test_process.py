"""The store of one process: when it is opened, forked, full, and full no more."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promgun.store.board import Cell, Role
from promgun.store.process import ProcessStore
from promgun.store.row_format import CellGroup, RowSchema
from promgun.store.run_reader import is_alive
from promgun.store.values import SlotValue, value_class
from tests.support.store_fixtures import (
    Opened,
    boards,
    client_of,
    descriptors,
    fork,
    in_fresh_interpreter,
    key_of,
    open_directory,
    opened,
    page_totals,
    published,
    release,
    slots_of,
    stock_totals,
    totals,
    wait_for,
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Opened]:
    with opened(tmp_path) as found:
        yield found


class Disk:
    """A file system that is full when told so, by making ``posix_fallocate`` and the creation of files fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def fill(self, number: int = errno.ENOSPC, *, inodes: bool = False) -> None:
        """Let nothing be reserved, and without ``inodes`` left nothing be made."""

        def refuse(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        self._monkeypatch.setattr(os, "posix_fallocate", refuse)
        real = os.open

        def refuse_new(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if flags & os.O_CREAT:
                raise OSError(number, os.strerror(number), str(path))
            return real(path, flags, *rest, **more)

        if inodes:
            self._monkeypatch.setattr(os, "open", refuse_new)

    def free(self) -> None:
        """Let there be space again."""
        self._monkeypatch.undo()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def value(store: ProcessStore, name: str = "c", kind: str = "counter", mode: str = "") -> SlotValue:
    suffix = "_total" if kind == "counter" else ""
    return value_class(store.app.values)(kind, name, f"{name}{suffix}", (), (), "Help.", multiprocess_mode=mode)


def errors(path: Path, cell: int = Cell.ERRORS_NO_SPACE) -> int:
    return sum(view[cell] for view in boards(path))


# ---- publishing


def _published_before_the_import(path: str) -> list[str]:
    store = published(path)
    assert "prometheus_client" not in sys.modules
    import prometheus_client  # noqa: PLC0415 - what this is about

    prometheus_client.Counter("c", "Help.").inc(3)
    return [prometheus_client.values.ValueClass.__name__, str(store.directory and store.directory.path)]


def _published_after_the_import(path: str) -> list[str]:
    import prometheus_client  # noqa: PLC0415 - what this is about

    published(path)
    prometheus_client.Counter("c", "Help.").inc(3)
    return [prometheus_client.values.ValueClass.__name__, path]


@pytest.mark.parametrize("order", [_published_before_the_import, _published_after_the_import])
def test_prometheus_client_uses_our_values_whenever_it_is_imported(tmp_path: Path, order: Any) -> None:
    assert in_fresh_interpreter(order, tmp_path) == ["SlotValue", str(tmp_path)]
    assert totals(tmp_path) == {"c_total{}": 3.0}


def _import_twice(path: str) -> list[str]:
    published(path).app.publish()
    ours = [vars(finder)["name"] for finder in sys.meta_path if type(finder).__name__ == "_Finder"]
    assert sorted(ours) == ["prometheus_client.metrics", "prometheus_client.values"]
    import importlib.util  # noqa: PLC0415 - what this is about

    spec = importlib.util.find_spec("prometheus_client.values")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return [module.ValueClass.__name__, str(spec.origin).rpartition("/")[2]]


def test_publishing_twice_is_publishing_once(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_import_twice, tmp_path) == ["SlotValue", "values.py"]


# ---- before and after the directory is known


def test_what_was_counted_before_the_directory_is_kept(tmp_path: Path) -> None:
    store = ProcessStore()
    store._registered = True
    counted, gauge = value(store), value(store, "g", "gauge", "max")
    counted.inc(2)
    gauge.set(7)
    assert counted.get() == 2.0
    assert store.number is None
    before = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    directory = open_directory(tmp_path)
    try:
        store.open(directory)
        counted.inc(1)
        assert totals(tmp_path) == {}
        store.flush()
        assert totals(tmp_path) == {"c_total{}": 3.0, "g{}": 7.0}
        assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(client_of(tmp_path))
        assert errors(tmp_path) == 0
    finally:
        if before is None:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]
        release(store)
        directory.close()


def test_nothing_is_claimed_before_it_is_needed(place: Opened, tmp_path: Path) -> None:
    assert boards(tmp_path) == []
    assert os.listdir(slots_of(tmp_path)) == []
    assert place.store.own_slot(Role.WORKER) == 1
    (view,) = boards(tmp_path)
    assert (view.slot, view[Cell.ROLE], is_alive(view)) == (1, Role.WORKER, True)


def test_a_master_has_a_number_of_its_own_and_no_slot(place: Opened, tmp_path: Path) -> None:
    assert place.store.own_slot(Role.MASTER) == 0
    place.store.flush()
    (view,) = boards(tmp_path)
    assert (view.slot, view[Cell.ROLE], is_alive(view)) == (-1, Role.MASTER, True)
    assert os.listdir(slots_of(tmp_path)) == []
    with opened(tmp_path, Role.MASTER) as second:
        assert second.store.own_slot() == 1
    with opened(tmp_path, Role.MASTER) as third:
        assert third.store.own_slot() == 1


def test_a_role_can_be_given_later(place: Opened, tmp_path: Path) -> None:
    value(place.store).inc(1)
    place.store.own_slot(Role.WORKER)
    (view,) = boards(tmp_path)
    assert view[Cell.ROLE] == Role.WORKER


def placed(*_: Any) -> None:
    """Do not care where values go."""


def test_places_are_found_again(place: Opened) -> None:
    keys = [key_of(n) for n in range(3)]
    cells, indexes = place.store.allocate("counter", keys, placed)
    cells[indexes[0]] += 2.0
    again, same = place.store.allocate("counter", keys[:1], placed)
    assert (again[same[0]], same) == (2.0, indexes[:1])


SCHEMA = RowSchema(("a", "b"), (CellGroup("x_total", ("a",)), CellGroup("y_seconds", ("b",), (1.0, 2.0))))


def test_rows_are_found_again_also_by_the_next_owner(place: Opened, tmp_path: Path) -> None:
    cells, indexes = place.store.allocate_row(SCHEMA, ("1", "2"), placed)
    assert len(indexes) == SCHEMA.cells == 5
    cells[indexes[0]] += 2.0
    cells[indexes[4]] += 3.0
    again, same = place.store.allocate_row(SCHEMA, ("1", "2"), placed)
    assert (again[same[0]], same) == (2.0, indexes)
    other, elsewhere = place.store.allocate_row(SCHEMA, ("1", "3"), placed)
    assert set(elsewhere).isdisjoint(indexes)
    assert [other[index] for index in elsewhere] == [0.0] * 5
    assert place.store.row_values(SCHEMA) == [("1", "2"), ("1", "3")]
    release(place.store)
    with opened(tmp_path) as heir:
        assert heir.store.row_values(SCHEMA) == [("1", "2"), ("1", "3")]
        taken, index = heir.store.allocate_row(SCHEMA, ("1", "2"), placed)
        taken[index[0]] += 1.0
        assert heir.store.number == 1
    assert {key: number for key, number in totals(tmp_path).items() if number} == {
        "x_total{a=1}": 3.0,
        "y_seconds_sum{b=2}": 3.0,
    }


def test_a_row_without_space_waits_and_moves(place: Opened, disk: Disk, tmp_path: Path) -> None:
    disk.fill()
    where: list[Any] = []
    cells, indexes = place.store.allocate_row(SCHEMA, ("1", "2"), lambda *found: where.append(found))
    cells[indexes[0]] += 2.0
    assert errors(tmp_path) == 0
    place.retry()
    assert where == []
    disk.free()
    place.retry()
    ((moved, at),) = where
    moved[at[0]] += 1.0
    # from a thread that looked the cell up before
    cells[indexes[0]] += 4.0
    place.retry()
    assert totals(tmp_path)["x_total{a=1}"] == 7.0
    assert errors(tmp_path) > 0


# ---- forks


def _listeners(path: str) -> list[int]:
    store = published(path)
    heard = [0]
    store.on_detach(lambda: heard.__setitem__(0, heard[0] + 1))
    reading, writing = os.pipe()
    wait_for(fork(lambda: os.write(writing, bytes(heard))))
    return [heard[0], os.read(reading, 1)[0]]


def test_a_child_is_told_to_ask_anew(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_listeners, tmp_path) == [0, 1]


def _fork_with_waiting_values(path: str) -> float:
    """What waits in the parent's memory is the parent's; the child begins at 0."""
    store = ProcessStore()
    counted = value_class(store.app.values)("counter", "c", "c_total", (), (), "Help.")
    counted.inc(5)
    os.register_at_fork(after_in_child=store._after_fork_in_child)

    def child() -> None:
        store._registered = True
        store.open(open_directory(path))
        assert counted.get() == 0.0
        counted.inc(1)
        store.flush()

    wait_for(fork(child))
    return counted.get()


def test_what_waits_belongs_to_the_parent(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_fork_with_waiting_values, tmp_path) == 5.0
    assert totals(tmp_path) == {"c_total{}": 1.0}


def _many_forks(path: str) -> list[int]:
    store = published(path)
    counted = value_class(store.app.values)("counter", "c", "c_total", (), (), "Help.")
    store._detach()
    release(store)
    before = descriptors()
    for _ in range(30):
        wait_for(fork(lambda: counted.inc(1)))
    return [descriptors() - before, len(store._claims._all)]


@pytest.mark.unmeasured("the processor alone bounds it, and measuring makes it several times as slow")
def test_children_leave_nothing_in_the_parent(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_many_forks, tmp_path) == [0, 0]
    assert totals(tmp_path) == {"c_total{}": 30.0}
    assert set(os.listdir(slots_of(tmp_path))) - {"folding-begun"} == {"1", "1.counter", "1.lock"}
    assert os.listdir(client_of(tmp_path)) == ["counter_slot1.db"]


# ---- no space


def test_what_finds_no_space_waits_and_moves(place: Opened, disk: Disk, tmp_path: Path) -> None:
    counted = value(place.store)
    counted.inc(1)
    disk.fill()
    gauge = value(place.store, "g", "gauge", "livesum")
    gauge.inc(3)
    gauge.inc(-1)
    assert gauge.get() == 2.0
    counted.inc(1)
    place.retry()
    assert totals(tmp_path) == {"c_total{}": 2.0}
    disk.free()
    place.retry()
    gauge.inc(5)
    assert totals(tmp_path) == stock_totals(tmp_path) == {"c_total{}": 2.0, "g{}": 7.0}
    place.retry()
    assert gauge.get() == 7.0


def test_there_may_be_no_space_for_anything_at_first(place: Opened, disk: Disk, tmp_path: Path) -> None:
    disk.fill(inodes=True)
    store = place.store
    board = store.board
    assert store.own_slot(Role.WORKER) is None
    board.cells[Cell.BOOTED] = 5
    board.enter(1000)
    counted = value(store)
    counted.inc(4)
    place.retry()
    assert boards(tmp_path) == []
    disk.free()
    place.retry()
    board.leave(3000)
    assert store.board is board
    assert board.shared
    (view,) = boards(tmp_path)
    assert is_alive(view)
    assert (view[Cell.ROLE], view[Cell.BOOTED], view.busy_ns(5000)) == (Role.WORKER, 5, 2000)
    assert view[Cell.PID] == os.getpid()
    assert view[Cell.CLAIMED] > 0
    assert view[Cell.ERRORS_NO_SPACE] > 0
    assert totals(tmp_path) == {"c_total{}": 4.0}


def test_a_board_without_space_moves_too(place: Opened, disk: Disk, tmp_path: Path) -> None:
    disk.fill()
    assert place.store.own_slot(Role.WORKER) == 1
    board = place.store.board
    board.cells[Cell.BOOTED] = 5
    shared = [board.shared]
    disk.free()
    place.retry()
    assert [*shared, board.shared] == [False, True]
    (view,) = boards(tmp_path)
    assert (view[Cell.BOOTED], is_alive(view)) == (5, True)


@pytest.mark.parametrize(
    ("number", "cell"),
    [
        (errno.ENOSPC, Cell.ERRORS_NO_SPACE),
        (errno.EDQUOT, Cell.ERRORS_NO_SPACE),
        (errno.EMFILE, Cell.ERRORS_NO_SPACE),
        (errno.EACCES, Cell.ERRORS_PERMISSION),
        (errno.EROFS, Cell.ERRORS_PERMISSION),
    ],
)
def test_what_cannot_be_stored_is_counted_by_reason(
    place: Opened, disk: Disk, tmp_path: Path, number: int, cell: int
) -> None:
    place.store.own_slot()
    disk.fill(number)
    value(place.store)
    assert errors(tmp_path, cell) == 1
    assert sum(errors(tmp_path, other) for other in (Cell.ERRORS_NO_SPACE, Cell.ERRORS_PERMISSION)) == 1


def test_a_damaged_file_is_counted_and_taken_over(place: Opened, tmp_path: Path) -> None:
    (slots_of(tmp_path) / "1.counter").write_bytes(b"garbage" * 1000)
    value(place.store).inc(1)
    assert errors(tmp_path, Cell.ERRORS_CORRUPT) == 1
    assert totals(tmp_path) == {"c_total{}": 1.0}


def test_one_warning_an_episode(place: Opened, disk: Disk, tmp_path: Path) -> None:
    place.store.own_slot()
    for episode, mode in enumerate(("min", "max"), start=1):
        disk.fill()
        kept = [value(place.store, f"{mode}{n}", "gauge", mode) for n in range(3)]
        for _ in range(5):
            place.retry()
        # This process has prometheus_client's own value class, which is a warning of its own.
        assert sum(text.startswith("Metrics cannot be stored") for text in place.warnings.texts) == episode
        disk.free()
        place.retry()
        for item in kept:
            item.inc(1)
    assert "No space left" in place.warnings.texts[0]
    assert str(tmp_path) in place.warnings.texts[0]
    assert len(totals(tmp_path)) == 6


def test_what_an_ending_process_cannot_store_is_counted_and_told(place: Opened, disk: Disk, tmp_path: Path) -> None:
    place.store.own_slot()
    value(place.store, "stored").inc(1)
    place.store.give_up()
    assert place.warnings.texts == []
    disk.fill()
    kept = [value(place.store, f"late{n}", "gauge", "max") for n in range(3)]
    for late in kept[:2]:
        late.inc(1)
    before = errors(tmp_path)
    place.store.give_up()
    told = [text for text in place.warnings.texts if "are lost" in text]
    assert [text.rsplit(": ", 1)[1] for text in told] == ["2 of its series are lost"]
    assert errors(tmp_path) == before + 2
    disk.free()
    place.store.give_up()
    assert len([text for text in place.warnings.texts if "are lost" in text]) == 1
    assert totals(tmp_path)["late1{}"] == 1.0


def test_nobody_is_told_before_there_is_somebody(place: Opened, disk: Disk) -> None:
    warn, place.store.warn = place.store.warn, None
    disk.fill(inodes=True)
    value(place.store)
    place.retry()
    assert place.warnings.texts == []
    place.store.warn = warn
    place.retry()
    assert len(place.warnings.texts) == 1


def test_tries_are_a_second_apart(place: Opened, disk: Disk) -> None:
    place.store.own_slot()
    disk.fill()
    counted = value(place.store)
    counted.inc(1)
    place.retry()
    disk.free()
    place.clock.pass_time(0.5)
    place.store.retry()
    assert isinstance(counted.place, tuple)
    assert not isinstance(counted.place[0], memoryview)
    place.clock.pass_time(0.6)
    place.store.retry()
    assert isinstance(counted.place[0], memoryview)


def test_one_file_that_cannot_grow_holds_up_no_other(place: Opened, disk: Disk, tmp_path: Path) -> None:
    first = value(place.store, "g", "gauge", "max")
    first.set(1)
    disk.fill()
    for n in range(300):
        value(place.store, f"c{n}").inc(1)
    fits = value(place.store, "k", "gauge", "max")
    fits.set(2)
    assert totals(tmp_path) == {"g{}": 1.0, "k{}": 2.0}


def test_a_store_that_cannot_be_written_costs_nobody_anything(place: Opened, disk: Disk) -> None:
    disk.fill(errno.EACCES, inodes=True)
    counted = value(place.store)
    for _ in range(3):
        counted.inc(1)
        place.retry()
        assert place.store.reserve() is None
        assert place.store.board.cells[Cell.ERRORS_PERMISSION] > 0
    assert counted.get() == 3.0


def test_a_value_of_the_page_is_never_seen_twice_while_it_moves(place: Opened, disk: Disk, tmp_path: Path) -> None:
    disk.fill()
    counted = [value(place.store, f"c{n}") for n in range(50)]
    for item in counted:
        item.inc(1)
    disk.free()
    for _ in range(3):
        place.retry()
        assert set(page_totals(tmp_path).values()) == {1.0}
