"""A mapped file that somebody removes, replaces or cuts: its owner makes it again and goes on in it."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from promgun.store.board import SIZE as BOARD_SIZE
from promgun.store.file_guard import Guarded, heal_files
from promgun.store.files import INITIAL_SIZE, ValueFile
from promgun.store.healing import Harm, find_harm, load_ahead
from promgun.store.new_file import Owner
from promgun.store.row_format import CellGroup, RowSchema
from promgun.store.row_scan import scan_rows
from promgun.store.slot_file import FILE_SIZE, SlotFile
from tests.support.runs import PLACES, as_user, key, kill_at_call, values_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMA = RowSchema(("route",), (CellGroup("hits", ("route",)), CellGroup("more", ("route",), (1.0, 2.0))))


@pytest.fixture(params=PLACES, ids=str)
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pg-heal-", dir=request.param))
    yield folder
    shutil.rmtree(folder)


def replace_by_copy(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    other.rename(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


HARMS = {
    Path.unlink: Harm.VANISHED,
    replace_by_copy: Harm.REPLACED,
    replace_by_folder: Harm.REPLACED,
    replace_by_link: Harm.REPLACED,
}


def rows_in(path: Path) -> dict[str, float]:
    data = path.read_bytes()
    assert len(data) == FILE_SIZE
    cells = memoryview(data).cast("d")
    return {row.values[0]: cells[row.numbers // 8] for row in scan_rows(data, BOARD_SIZE, len(data)).rows}


def descriptors_of_nothing() -> int:
    gc.collect()
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.fstat(int(name)).st_nlink == 0
    return found


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_slot_file_comes_back_with_its_values(folder: Path, harm: Callable[[Path], None]) -> None:
    before = descriptors_of_nothing()
    path = folder / "1"
    file = SlotFile(str(path))
    board = file.memory[:BOARD_SIZE].cast("q")
    cells, index = file.rows.table(SCHEMA).place(("/a",))
    board[5], cells[index] = 7, 3.0
    assert file.heal().harm is Harm.NONE
    harm(path)
    cells[index] += 1
    healing = file.heal()
    assert (healing.harm, healing.error) == (HARMS[harm], "")
    assert rows_in(path) == {"/a": 4.0}
    cells[index] += 1
    board[5] += 1
    more, place = file.rows.table(SCHEMA).place(("/b" * 2000,))
    more[place] = 9.0
    assert rows_in(path) == {"/a": 5.0, "/b" * 2000: 9.0}
    assert path.read_bytes()[40:48] == (8).to_bytes(8, "little")
    assert file.heal().harm is Harm.NONE
    assert path.stat().st_mode & 0o777 == 0o600
    assert descriptors_of_nothing() == before
    SlotFile(str(path))


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_value_file_comes_back_with_its_values(folder: Path, harm: Callable[[Path], None]) -> None:
    """Places stay good, those from before it grew too."""
    before = descriptors_of_nothing()
    path = folder / "1.counter"
    file = ValueFile(path, Owner())
    places = []
    for number in range(400):
        (index,) = file.indexes([key(n=f"{number:0200}")])
        places.append((file.cells, index))
        file.cells[index] = number
    assert path.stat().st_size > 4 * INITIAL_SIZE
    harm(path)
    for cells, index in places:
        cells[index] += 1
    assert (file.heal().harm, file.heal().harm) == (HARMS[harm], Harm.NONE)
    for cells, index in places:
        cells[index] += 1
    assert list(values_in(path.read_bytes()).values()) == [number + 2.0 for number in range(400)]
    for number in range(400, 1000):
        (index,) = file.indexes([key(n=f"{number:0200}")])
        file.cells[index] = number + 2
    assert list(values_in(path.read_bytes()).values()) == [number + 2.0 for number in range(1000)]
    assert descriptors_of_nothing() == before
    file.close()


def test_threads_that_count_meanwhile_lose_nothing(folder: Path) -> None:
    path = folder / "1.counter"
    file = ValueFile(path, Owner())
    indexes = file.indexes([key(n=str(number)) for number in range(3)])
    cells, stop = file.cells, threading.Event()
    counted = [0, 0, 0]

    def count(number: int) -> None:
        index = indexes[number]
        while not stop.is_set():
            for _ in range(1000):
                cells[index] += 1.0
            counted[number] += 1000

    threads = [threading.Thread(target=count, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(150):
        path.unlink()
        assert file.heal().error == ""
    stop.set()
    for thread in threads:
        thread.join()
    assert list(values_in(path.read_bytes()).values()) == counted
    assert min(counted) > 0
    file.close()


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
def test_killed_between_any_two_calls(folder: Path) -> None:
    """The file is there whole, or not there: never in between."""
    path = folder / "1"
    number = 0
    while True:
        number += 1
        path.unlink(missing_ok=True)

        def work() -> None:
            file = SlotFile(str(path))
            cells, index = file.rows.table(SCHEMA).place(("/a",))
            cells[index] = 3.0
            path.unlink()
            file.heal()
            cells[index] = 4.0

        reached = kill_at_call(number, work)
        if path.exists() and path.stat().st_size:
            assert rows_in(path) in ({}, {"/a": 3.0}, {"/a": 4.0})
        SlotFile(str(path))
        if not reached:
            break
    assert number > 20
    assert rows_in(path) == {"/a": 4.0}


def test_a_cut_value_file_shows_its_series_again(folder: Path) -> None:
    path = folder / "1.counter"
    file = ValueFile(path, Owner())
    names = [key(n=str(number)) for number in range(5)]
    indexes = file.indexes(names)
    for index in indexes:
        file.cells[index] = 7.0
    os.truncate(path, 8 * indexes[1] + 16)
    assert file.heal().harm is Harm.SHRUNK
    assert list(values_in(path.read_bytes()).values()) == [7.0, 7.0, 0.0, 0.0, 0.0]
    file.cells[indexes[4]] += 2
    assert values_in(path.read_bytes())[names[4]] == 2.0
    file.close()


def test_a_cut_slot_file_goes_on(folder: Path) -> None:
    path = folder / "1"
    file = SlotFile(str(path))
    for route in ("/a", "/b"):
        cells, index = file.rows.table(SCHEMA).place((route,))
        cells[index] = 3.0
    os.truncate(path, index * 8 - 40)
    assert file.heal().harm is Harm.SHRUNK
    assert rows_in(path) == {"/a": 3.0}
    cells, index = file.rows.table(SCHEMA).place(("/b",))
    cells[index] += 1
    assert rows_in(path) == {"/a": 3.0, "/b": 1.0}
    os.truncate(path, 0)
    assert file.heal().harm is Harm.SHRUNK
    cells, index = file.rows.table(SCHEMA).place(("/b",))
    cells[index] += 1
    assert rows_in(path) == {"/b": 1.0}


def test_what_cannot_be_healed_now_is_healed_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "1"
    file = SlotFile(str(path))
    cells, index = file.rows.table(SCHEMA).place(("/a",))
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *_: 0)
        assert "No space" in file.heal().error
    assert not list(folder.iterdir())
    cells[index] += 1
    assert find_harm(str(path), file.identity, FILE_SIZE) is Harm.VANISHED
    assert file.heal().error == ""
    assert rows_in(path) == {"/a": 1.0}


def test_all_files_of_a_slot_are_looked_after(folder: Path) -> None:
    slot = SlotFile(str(folder / "1"))
    values = [ValueFile(folder / f"1.{kind}", Owner()) for kind in ("counter", "gauge_max")]
    assert heal_files(slot, values, lambda: False) == Guarded()
    (folder / "1").unlink()
    (folder / "1.gauge_max").unlink()
    done = heal_files(slot, values, lambda: False)
    assert (done.healed, done.errors, done.lost_rows) == ((str(folder / "1"), str(folder / "1.gauge_max")), (), False)
    assert "no value is lost" in done.warning
    assert heal_files(slot, values, lambda: False).warning == ""
    os.truncate(folder / "1", 100)
    assert heal_files(slot, values, lambda: False).lost_rows
    shutil.rmtree(folder)
    done = heal_files(slot, values, lambda: False)
    assert (done.healed, len(done.errors)) == ((), 3)
    assert "cannot be restored" in done.warning
    folder.mkdir()
    assert len(heal_files(slot, values, lambda: False).healed) == 3
    for file in values:
        file.close()


@pytest.mark.needs_root("become somebody else")
def test_as_the_workers_user(folder: Path) -> None:
    os.chown(folder, 65534, 65534)
    load_ahead()

    def work() -> None:
        path = folder / "1"
        file = SlotFile(str(path))
        cells, index = file.rows.table(SCHEMA).place(("/a",))
        path.unlink()
        assert file.heal().error == ""
        cells[index] += 1
        assert rows_in(path) == {"/a": 1.0}

    as_user(65534, work)
