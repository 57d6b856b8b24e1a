"""What PROMETHEUS_MULTIPROC_DIR names may be wiped, removed or replaced: the links are there again, and one warning."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from promgun.store.board import Role
from promgun.store.client_links import ClientLinks, link_file, unlink_file
from promgun.store.files import Owner, ValueFile
from promgun.store.folding import fold_dead
from promgun.store.foreign_reader import ForeignReader
from promgun.store.process import ProcessStore
from tests.support.runs import PLACES, as_user, ended, key, private_run
from tests.support.store_fixtures import fork, wait_for
from tests.unit.store.test_foreign import files_in, stock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from promgun.store.run_directory import RunDirectory

A = key(n="a")
TOTAL = "jobs_total [('n', 'a')]"


@pytest.fixture(params=PLACES, ids=str)
def run(request: pytest.FixtureRequest) -> Iterator[RunDirectory]:
    with private_run(request.param, second=True) as run:
        yield run


def count(run: RunDirectory, slot: int | str, value: float, kind: str = "counter") -> ValueFile:
    file = ValueFile((run.master if str(slot).startswith("m") else run.slots) / f"{slot}.{kind}", Owner())
    (index,) = file.indexes([A])
    file.cells[index] += value
    return file


def test_stock_readers_see_the_application_everywhere(run: RunDirectory) -> None:
    for slot, value in ((1, 1.0), (2, 2.0), ("m0", 4.0)):
        count(run, slot, value).close()
    (run.slots / "1").write_bytes(b"a board and our own rows")
    (run.slots / "1.lock").touch()
    done = ClientLinks(run).tend()
    assert (len(done.made), done.restored, done.remade, done.failed, done.warning) == (6, (), (), (), "")
    for client in run.clients:
        assert files_in(client) == ["counter_m0.db", "counter_slot1.db", "counter_slot2.db"]
        assert stock(client) == {TOTAL: 7.0}
        assert (client / "counter_slot1.db").stat().st_ino == (run.slots / "1.counter").stat().st_ino
        assert not (client / "counter_slot1.db").is_symlink()
        assert (client / "counter_m0.db").is_symlink()


def wipe(client: Path) -> None:
    for name in os.listdir(client):
        (client / name).unlink()


def remove(client: Path) -> None:
    shutil.rmtree(client)


def remake(client: Path) -> None:
    client.rename(client.with_name("away"))
    client.mkdir()


def copy_over(client: Path) -> None:
    path = client / "counter_slot1.db"
    shutil.copy(path, client / "copy")
    (client / "copy").rename(path)


def obstruct(client: Path) -> None:
    (client / "counter_slot1.db").unlink()
    (client / "counter_slot1.db").mkdir()


def put_a_file(client: Path) -> None:
    shutil.rmtree(client)
    client.write_text("no directory")


@pytest.mark.parametrize("harm", [wipe, remove, remake, copy_over, obstruct, put_a_file])
@pytest.mark.parametrize("which", [0, 1])
def test_what_the_application_does_there_is_undone(run: RunDirectory, harm: Callable[[Path], None], which: int) -> None:
    file = count(run, 1, 1.0)
    links = ClientLinks(run)
    links.tend()
    client = run.clients[which]
    harm(client)
    done = links.tend()
    assert "PROMETHEUS_MULTIPROC_DIR" in done.warning
    assert str(client) in done.warning
    assert done.remade == ((client,) if harm in (remove, remake, put_a_file) else ())
    assert done.failed == ()
    (index,) = file.indexes([A])
    file.cells[index] += 1
    assert stock(client) == {TOTAL: 2.0}
    assert [name for name in files_in(client) if name.startswith(".")] == []
    assert links.tend().warning == ""
    file.close()


def test_a_file_made_again_by_its_owner_is_followed_without_a_warning(run: RunDirectory) -> None:
    file = count(run, 1, 1.0)
    links = ClientLinks(run)
    links.tend()
    file.path.unlink()
    assert file.heal().error == ""
    (index,) = file.indexes([A])
    file.cells[index] += 1
    done = links.tend()
    assert (len(done.made), done.warning) == (2, "")
    assert [stock(client) for client in run.clients] == [{TOTAL: 2.0}] * 2
    file.close()


def test_links_of_an_earlier_run_are_removed_at_the_start(run: RunDirectory) -> None:
    assert run.second_client is not None
    count(run, 1, 1.0).close()
    ended(run.second_client, "counter", "slot1", {A: 50.0})
    ended(run.second_client, "counter", "slot9", {A: 50.0})
    ended(run.second_client, "counter", "folded", {A: 50.0})
    (run.second_client / "counter_m3.db").symlink_to(run.master / "gone")
    (run.second_client / ".new-counter_slot4.db").touch()
    (run.second_client / "counter_77.db").write_bytes(b"of a child")
    (run.second_client / "mine.txt").touch()
    links = ClientLinks(run)
    assert len(links.remove_stale()) == 5
    assert files_in(run.second_client) == ["counter_77.db", "mine.txt"]
    assert links.tend().warning == ""
    assert files_in(run.second_client) == ["counter_77.db", "counter_slot1.db", "mine.txt"]
    assert links.remove_stale() == []


def test_what_the_dead_left_is_linked_too(run: RunDirectory) -> None:
    fold_dead(run)
    count(run, 1, 1.0).close()
    ended(run.multiproc, "counter", 100, {A: 3.0})
    links = ClientLinks(run)
    links.tend()
    fold_dead(run)
    assert links.tend().warning == ""
    assert [stock(client) for client in run.clients] == [{TOTAL: 4.0}] * 2
    wipe(run.multiproc)
    assert links.tend().warning
    assert stock(run.multiproc) == {TOTAL: 4.0}


@pytest.mark.skipif(len(PLACES) < 2, reason="needs two file systems")
def test_across_file_systems_links_are_symbolic(tmp_path: Path) -> None:
    with private_run(PLACES[0]) as run:
        run.second_client = tmp_path
        count(run, 1, 1.0).close()
        links = ClientLinks(run)
        assert links.tend().failed == ()
        if tmp_path.stat().st_dev != run.slots.stat().st_dev:
            assert (tmp_path / "counter_slot1.db").is_symlink()
        assert stock(tmp_path) == {TOTAL: 1.0}
        assert links.tend().made == ()


def test_a_client_directory_that_cannot_be_had_is_passed_over(run: RunDirectory) -> None:
    count(run, 1, 1.0).close()
    run.second_client = Path("/proc/no/such/place")
    done = ClientLinks(run).tend()
    assert (len(done.made), len(done.failed)) == (1, 1)


def test_live_gauges_of_an_ended_worker_are_unlinked(run: RunDirectory) -> None:
    """Without somebody who calls mark_process_dead, and before the slot has another owner."""
    name = key("busy", "")

    def worker() -> None:
        store = ProcessStore()
        store.open(run)
        store.own_slot(Role.WORKER)

    wait_for(fork(worker))
    for slot in (1, 2):
        file = ValueFile(run.slots / f"{slot}.gauge_livesum", Owner())
        (index,) = file.indexes([name])
        file.cells[index] = float(slot)
        file.close()
    count(run, 1, 1.0).close()
    links = [ClientLinks(run), ClientLinks(run)]
    for client in run.clients:
        link_file(run, run.slots / "1.gauge_livesum", "1", "gauge_livesum")
        assert "gauge_livesum_slot1.db" in files_in(client)
    for _ in range(5):
        assert [each.tend().warning for each in links] == ["", ""]
    for client in run.clients:
        assert slots_in(client) == ["counter_slot1.db", "gauge_livesum_slot2.db"], "nothing is known of slot 2"
        assert stock(client)["busy []"] == 2.0


# ---- two runs in one directory


@pytest.fixture
def other(run: RunDirectory) -> Iterator[RunDirectory]:
    """A run that was given the same directory, later, while a worker of the first lives."""
    with private_run(PLACES[0]) as other, held(run), held(other):
        other.second_client = run.second_client
        yield other


@contextlib.contextmanager
def held(run: RunDirectory) -> Iterator[None]:
    """Have a slot of the run, as a worker has."""
    with (run.slots / "1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def slots_in(folder: Path | None) -> list[str]:
    assert folder is not None
    return [re.sub("-[0-9a-f]{8}", "-other", name) for name in files_in(folder) if "slot" in name]


def test_two_runs_in_one_directory_each_keep_their_links(run: RunDirectory, other: RunDirectory) -> None:
    shared = run.second_client
    assert shared is not None
    for slot in (1, 2, 3):
        count(run, slot, 1.0).close()
    count(other, 1, 10.0).close()
    first, later = ClientLinks(run), ClientLinks(other)
    assert (len(first.remove_stale()), first.tend().warning) == (0, "")
    # Slots 2 and 3 of the first have no owner at the moment: what the other has at its start goes by the run.
    assert later.remove_stale() == []
    both = ["counter_slot1-other.db", "counter_slot1.db", "counter_slot2.db", "counter_slot3.db"]
    assert str(shared) in later.tend().warning
    for _ in range(2):
        assert slots_in(shared) == both
        assert stock(shared) == {TOTAL: 13.0}
        assert [links.tend().warning for links in (first, later, ClientLinks(other))] == ["", "", ""]
    assert (stock(run.multiproc), stock(other.multiproc)) == ({TOTAL: 3.0}, {TOTAL: 10.0})
    wipe(shared)
    later.tend()
    assert first.tend().warning
    assert slots_in(shared) == both
    unlink_file(other, "1", "counter")
    link_file(other, other.slots / "1.counter", "1", "counter")
    assert (slots_in(shared), stock(shared)) == (both, {TOTAL: 13.0})


def test_a_run_after_the_first_leaves_the_other_s_links(run: RunDirectory, other: RunDirectory) -> None:
    for each, value in ((run, 1.0), (other, 10.0)):
        count(each, 1, value).close()
        links = ClientLinks(each)
        links.remove_stale()
        links.tend()
    run.close({1})
    with private_run(PLACES[0]) as third:
        third.second_client = run.second_client
        count(third, 1, 100.0).close()
        links = ClientLinks(third)
        links.remove_stale()
        assert links.tend().warning == ""
        assert ClientLinks(other).tend().warning == ""
        assert slots_in(third.second_client) == ["counter_slot1-other.db", "counter_slot1.db"]
        assert third.second_client is not None
        assert stock(third.second_client) == {TOTAL: 110.0}
        other.close({1})
        assert len(links.remove_stale()) == 1
        assert stock(third.second_client) == {TOTAL: 100.0}


def test_a_run_that_was_given_another_s_own_directory_keeps_apart(run: RunDirectory, other: RunDirectory) -> None:
    """A server that a worker starts inherits the variable."""
    other.second_client = run.multiproc
    for each, value in ((other, 10.0), (run, 1.0)):
        count(each, 1, value).close()
        links = ClientLinks(each)
        links.remove_stale()
        links.tend()
        links.tend()
    ClientLinks(other).tend()
    assert slots_in(run.multiproc) == ["counter_slot1-other.db", "counter_slot1.db"]
    assert stock(run.multiproc) == {TOTAL: 11.0}


def test_what_others_write_in_a_shared_directory_is_the_first_run_s(run: RunDirectory, other: RunDirectory) -> None:
    shared = run.second_client
    assert shared is not None
    for each in (run, other):
        links = ClientLinks(each)
        links.remove_stale()
        fold_dead(each)
        links.tend()
    ended(shared, "counter", 100, {A: 3.0})
    for each, values in ((other, 0), (run, 1)):
        reading = ForeignReader(each).read()
        assert len(reading.contents) == values
        assert fold_dead(each).taken == values
    assert stock(shared) == {TOTAL: 3.0}


@pytest.mark.needs_root("become somebody else")
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_the_workers_user_tends_them_and_root_does_not(place: Path) -> None:
    with private_run(place) as run:
        run.path.parent.chmod(0o711)
        run.give_to(Owner(65534, 65534))
        count(run, "m0", 4.0).close()
        os.chown(run.master / "m0.counter", -1, 65534)
        (run.master / "m0.counter").chmod(0o640)
        assert ClientLinks(run).tend().made == ()

        def work() -> None:
            count(run, 1, 1.0).close()
            links = ClientLinks(run)
            assert len(links.tend().made) == 2
            shutil.rmtree(run.multiproc)
            assert links.tend().warning
            assert stock(run.multiproc) == {TOTAL: 5.0}

        as_user(65534, work)
