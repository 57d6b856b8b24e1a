"""What PROMETHEUS_MULTIPROC_DIR names may be wiped, removed or replaced: the links are there again, and one warning."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from promgun.store.client_links import ClientLinks, link_into
from promgun.store.files import Owner, ValueFile
from promgun.store.folding import fold_dead
from tests.support.runs import PLACES, as_user, ended, key, private_run
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
    assert not link_into(Path("/proc/no/such/place"), run.slots / "1.counter", "counter_slot1.db")


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
