"""What PROMETHEUS_MULTIPROC_DIR names may be wiped, removed or replaced: the links are there again, and one warning."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from promgun.store.board import Role
from promgun.store.client_claim import CLAIM_FILE
from promgun.store.client_links import link_file, remove_links, unlink_file
from promgun.store.client_upkeep import ClientLinks
from promgun.store.files import ValueFile
from promgun.store.folding import fold_dead
from promgun.store.foreign_reader import ForeignReader
from promgun.store.new_file import Owner
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
    """A run that was given the same directory."""
    with private_run(PLACES[0]) as other:
        other.second_client = run.second_client
        yield other


@pytest.fixture
def shared(run: RunDirectory) -> Path:
    assert run.second_client is not None
    return run.second_client


def started(run: RunDirectory, value: float, slots: int = 1) -> ClientLinks:
    """Count in a run's slots and have its first worker begin to tend the links."""
    for slot in range(1, slots + 1):
        count(run, slot, value).close()
    links = ClientLinks(run)
    links.remove_stale()
    links.tend()
    return links


def kill_master(run: RunDirectory) -> None:
    """Release what a run's master has, without any of what it does when it ends; its workers go on."""
    fcntl.flock(run.fd, fcntl.LOCK_UN)


def slots_in(folder: Path) -> list[str]:
    return [name for name in files_in(folder) if "slot" in name]


def test_a_second_run_keeps_away_from_the_directory_of_a_living_one(
    run: RunDirectory, other: RunDirectory, shared: Path
) -> None:
    first, later = started(run, 1.0, 3), started(other, 10.0)
    ended(shared, "counter", 100, {A: 5.0})
    for _ in range(2):
        assert str(shared) in later.tend().warning_of_another
        assert (first.tend().warning_of_another, first.tend().warning, later.tend().warning) == ("", "", "")
        assert slots_in(shared) == [f"counter_slot{slot}.db" for slot in (1, 2, 3)]
        assert stock(shared) == {TOTAL: 8.0}
    assert (stock(run.multiproc), stock(other.multiproc)) == ({TOTAL: 3.0}, {TOTAL: 10.0})
    unlink_file(other, "1", "counter")
    link_file(other, other.slots / "1.counter", "1", "counter")
    assert stock(shared) == {TOTAL: 8.0}
    for each, values in ((other, 0), (run, 1)):
        assert len(ForeignReader(each).read().contents) == values
    other.close((), remove_links)
    first.tend()
    assert stock(shared) == {TOTAL: 8.0}, "the second has ended"


def end(run: RunDirectory) -> None:
    run.close((), remove_links)


def removed(run: RunDirectory) -> None:
    """The master of a run could not tidy up, as one that is root."""
    run.close()


@pytest.mark.parametrize("gone", [end, removed, kill_master])
def test_it_takes_the_directory_over_when_the_first_has_no_master(
    run: RunDirectory, other: RunDirectory, shared: Path, gone: Callable[[RunDirectory], None]
) -> None:
    """An orphan of a killed master that still drains does not count: it has a slot, and links no more."""
    first, later = started(run, 1.0, 3), started(other, 10.0)
    with (run.slots / "2.lock").open("w") as lock:
        if gone is kill_master:
            fcntl.flock(lock, fcntl.LOCK_EX)
        gone(run)
        assert stock(shared) == {} if gone is end else True
        done = later.tend()
        assert (done.warning, done.warning_of_another) == ("", "")
        assert slots_in(shared) == ["counter_slot1.db"]
        assert stock(shared) == {TOTAL: 10.0}
        first.tend()
        assert stock(shared) == {TOTAL: 10.0}
        ended(shared, "counter", 100, {A: 5.0})
        assert len(ForeignReader(other).read().contents) == 1


def test_what_processes_without_promgun_write_is_shown_by_the_run_that_took_over(
    run: RunDirectory, other: RunDirectory, shared: Path
) -> None:
    started(run, 1.0)
    later = started(other, 10.0)
    fold_dead(other)
    end(run)
    later.tend()
    ended(shared, "counter", 100, {A: 5.0})
    assert fold_dead(other).taken == 1
    later.tend()
    assert stock(shared) == {TOTAL: 15.0}


def test_a_run_that_ends_leaves_nothing_of_its_own(run: RunDirectory, shared: Path) -> None:
    started(run, 1.0, 2)
    count(run, "m0", 4.0).close()
    ClientLinks(run).tend()
    (shared / "mine.txt").touch()
    end(run)
    assert os.listdir(shared) == ["mine.txt"]


def test_dead_links_go_whoever_made_them(run: RunDirectory, shared: Path) -> None:
    links = started(run, 1.0)
    (shared / "counter_slot7.db").symlink_to(run.path.parent / "gone")
    ended(shared, "counter", "slot8", {A: 50.0})
    links.tend()
    assert stock(shared) == {TOTAL: 1.0}


def test_a_run_keeps_away_from_the_directory_that_another_s_workers_have(
    run: RunDirectory, other: RunDirectory
) -> None:
    """A server that a worker starts inherits the variable. The directory is not made again when that run is gone."""
    other.second_client = run.multiproc
    later = started(other, 10.0)
    started(run, 1.0)
    assert later.tend().warning_of_another
    assert stock(run.multiproc) == {TOTAL: 1.0}
    run.close()
    assert later.tend().warning_of_another
    assert not run.path.exists()


def test_a_master_executed_by_sigusr2_waits_for_the_old_one_without_a_warning(
    run: RunDirectory, other: RunDirectory, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under plain Gunicorn the two have a run each."""
    store = ProcessStore()
    store._registered = True
    store.directory, store.role = run, Role.MASTER
    store.own_slot(Role.MASTER)
    store.flush()
    started(run, 1.0)
    later = started(other, 10.0)
    assert later.tend().warning_of_another
    monkeypatch.setenv("GUNICORN_PID", str(os.getpid()))
    assert later.tend().warning_of_another == ""
    assert stock(shared) == {TOTAL: 1.0}


def claimed(shared: Path, change: Callable[[str], str] = str, age: float = 0.0) -> None:
    path = shared / CLAIM_FILE
    path.write_text(change(path.read_text()))
    os.utime(path, (time.time() - age,) * 2)


@pytest.mark.parametrize(("age", "there"), [(0.0, 1.0), (60.0, 10.0)])
def test_a_run_of_another_mount_namespace_lives_as_long_as_it_renews_its_claim(
    run: RunDirectory, other: RunDirectory, shared: Path, age: float, there: float
) -> None:
    """Two containers with one volume: neither finds the other's directory."""
    started(run, 1.0)
    lines = (shared / CLAIM_FILE).read_text().splitlines()
    claimed(shared, lambda _: f"/no/such/run\n{lines[1]}\nanother boot mnt:[1]\n", age)
    started(other, 10.0)
    assert stock(shared) == {TOTAL: there}


def test_a_run_renews_its_claim(run: RunDirectory, shared: Path) -> None:
    links = started(run, 1.0)
    claimed(shared, age=60.0)
    links.tend()
    assert time.time() - (shared / CLAIM_FILE).stat().st_mtime < 30
    assert stat.S_ISREG((shared / CLAIM_FILE).lstat().st_mode)


@pytest.mark.parametrize(
    "text", ["", "nonsense", "/x\n1 x\n\n", "/x\n" + "9" * 99 + " 1\n\n", "/\0\n1 1\n\n", "\udcff"]
)
def test_a_claim_that_no_run_wrote_is_replaced(run: RunDirectory, shared: Path, text: str) -> None:
    (shared / CLAIM_FILE).write_bytes(os.fsencode(text))
    started(run, 1.0)
    assert str(run.path) in (shared / CLAIM_FILE).read_text()
    assert stock(shared) == {TOTAL: 1.0}


def test_a_link_or_a_folder_in_the_claim_s_place_harms_nobody(run: RunDirectory, shared: Path) -> None:
    (shared / CLAIM_FILE).symlink_to(run.slots)
    links = started(run, 1.0)
    assert not (shared / CLAIM_FILE).is_symlink()
    (shared / CLAIM_FILE).unlink()
    (shared / CLAIM_FILE).mkdir()
    assert links.tend().failed == ()
    assert stock(shared) == {TOTAL: 1.0}


@pytest.mark.needs_root("become somebody else")
def test_workers_see_whether_a_root_master_lives(run: RunDirectory, other: RunDirectory, shared: Path) -> None:
    """They cannot open its run's directory; its own file is locked, and may be read by their group."""
    for folder in (run.path.parent, other.path.parent):
        folder.chmod(0o711)
    shared.chmod(0o777)
    for each in (run, other):
        each.give_to(Owner(65534, 65534))
    store = ProcessStore()
    store._registered = True
    store.directory, store.role = run, Role.MASTER
    store.own_slot(Role.MASTER)
    store.flush()

    def work() -> None:
        started(run, 1.0)
        later = started(other, 10.0)
        assert later.tend().warning_of_another
        assert stock(shared) == {TOTAL: 1.0}

    as_user(65534, work)
    home = store.find_home()
    home.close()
    kill_master(run)

    def work_on() -> None:
        assert ClientLinks(other).tend().warning_of_another == ""
        assert stock(shared) == {TOTAL: 10.0}

    as_user(65534, work_on)


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
