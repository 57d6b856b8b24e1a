"""What killed runs left in a public place: swept at the next start, and nothing that is held or another's."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from promgun.store import left_overs
from promgun.store.left_overs import sweep
from promgun.store.new_file import Owner
from promgun.store.process import ProcessStore
from promgun.store.run_directory import VERSION, RunDirectory, directory_identity
from promgun.store.run_places import (
    attach,
    create_private,
)
from promgun.system import remove_tree
from promgun.system.safe_open import open_folder
from tests.support.store_fixtures import (
    OBSTACLES,
    descriptors,
    fork,
    in_fresh_interpreter,
)
from tests.unit.store.test_run_places import NOBODY, holder, left_over, line, names

needs_root = pytest.mark.needs_root("give files to another user")


def test_left_overs_are_swept_and_nothing_else(tmp_path: Path) -> None:
    dead = left_over(tmp_path)
    without_version = tmp_path / "promgun-somebody-elses"
    without_version.mkdir()
    target = left_over(tmp_path, "kept")
    (tmp_path / "promgun-link").symlink_to(target)
    (tmp_path / "promgun-file").write_text("text")
    (tmp_path / "other").mkdir()
    assert sweep(tmp_path, Owner()) == [dead]
    assert names(tmp_path) == ["kept", "other", "promgun-file", "promgun-link", "promgun-somebody-elses"]
    assert names(target) == ["client", "master", "slots", VERSION]
    assert names(target / "slots") == ["1", "1.lock"]


def test_a_place_that_is_gone_has_no_left_overs(tmp_path: Path) -> None:
    assert sweep(tmp_path / "gone", Owner()) == []


def test_what_is_held_is_not_swept(tmp_path: Path) -> None:
    with holder(f"create_private(Owner(), [Path({str(tmp_path)!r})])") as other:
        path = line(other)
        assert sweep(tmp_path, Owner()) == []
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert sweep(tmp_path, Owner()) == [path]


def _orphan(path: str) -> list[int]:
    """A master forks a worker with a slot and is killed; the worker lives on and has let go of the run's lock."""
    reading, writing = os.pipe()

    def orphan() -> None:
        # Our output is a pipe, which ends when nobody has it open any more.
        os.closerange(0, 3)
        time.sleep(60)

    def master() -> None:
        store = ProcessStore()
        store.open(create_private(Owner(), [Path(path)]))
        store.own_slot()
        lock = store.reserve()
        assert lock is not None
        os.write(writing, f"{fork(orphan)} {lock.number}".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(fork(master), 0)
    return [int(word) for word in os.read(reading, 40).split()]


def freed(place: Path) -> None:
    """Sweep until what a killed process held is free."""
    deadline = time.monotonic() + 60
    while not sweep(place, Owner()):
        assert time.monotonic() < deadline


def test_what_an_orphan_works_in_is_not_swept(tmp_path: Path) -> None:
    orphan, slot = in_fresh_interpreter(_orphan, tmp_path)
    try:
        (made,) = tmp_path.iterdir()
        run_fd = open_folder(made)
        # The run itself is free: only the slot shows that somebody lives.
        fcntl.flock(run_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(run_fd)
        assert slot == 1
        assert sweep(tmp_path, Owner()) == []
        # Nor does another master of the run remove it when it leaves, the orphan not being its own.
        successor(made).close(own_slots={2})
        assert names(made) == ["client", "master", "slots", VERSION]
    finally:
        os.kill(orphan, signal.SIGKILL)
    freed(tmp_path)
    assert names(tmp_path) == []


def successor(path: Path) -> RunDirectory:
    """Return the directory as a master has it that another one executed."""
    return attach(path, Owner(), directory_identity(path), private=True)


def test_workers_that_their_own_master_has_just_killed_do_not_count(tmp_path: Path) -> None:
    made = create_private(Owner(), [tmp_path])
    with (made.slots / "1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made.close(own_slots={1})
    assert names(tmp_path) == []


def test_the_lock_of_any_slot_counts_and_nothing_else_does(tmp_path: Path) -> None:
    path = left_over(tmp_path)
    for name in ("1", "m0", "lock", "x.lock", "-1.lock", "9999999.lock"):
        with (path / "slots" / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            (path / "slots" / "2.lock").touch()
            with (path / "slots" / "2.lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                assert sweep(tmp_path, Owner()) == []
    with (path / "slots" / "1").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert sweep(tmp_path, Owner()) == [path]


def test_a_directory_being_made_is_swept_only_when_old(tmp_path: Path) -> None:
    young, old = tmp_path / ".promgun-young", tmp_path / ".promgun-old"
    young.mkdir()
    old.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    assert sweep(tmp_path, Owner()) == [old]


@needs_root
def test_left_overs_of_other_users_are_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left_over(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: NOBODY)
        assert sweep(tmp_path, Owner()) == []
    os.chown(path, NOBODY, NOBODY)
    assert sweep(tmp_path, Owner()) == []
    assert sweep(tmp_path, Owner(4321)) == []
    assert sweep(tmp_path, Owner(NOBODY)) == [path]


def swept_in_time(place: Path) -> list[Path]:
    """Sweep in a process of its own: whoever waits for somebody else is killed."""
    return [Path(path) for path in in_fresh_interpreter(_sweep, place, timeout=30)]


def _sweep(place: str) -> list[str]:
    signal.alarm(20)
    return [str(path) for path in sweep(Path(place), Owner(NOBODY, NOBODY))]


@pytest.mark.unmeasured("it starts many interpreters, and measuring doubles what each costs")
@pytest.mark.parametrize("kind", OBSTACLES)
@pytest.mark.parametrize("name", ["promgun-planted", ".promgun-planted"])
def test_what_is_planted_in_a_public_place_holds_nobody_up(tmp_path: Path, kind: str, name: str) -> None:
    place, victim = tmp_path / "place", tmp_path / "victim"
    place.mkdir()
    victim.mkdir()
    (victim / VERSION).write_text("precious")
    OBSTACLES[kind](place / name)
    os.utime(place / name, (1, 1), follow_symlinks=False)
    (place / "promgun-link").symlink_to(victim)
    (place / ".promgun-link").symlink_to(victim)
    before = set(names(place))
    assert swept_in_time(place) in ([], [place / name])
    assert before - set(names(place)) <= ({name} if kind == "directory" else set())
    assert names(victim) == [VERSION]


@pytest.mark.unmeasured("it starts many interpreters, and measuring doubles what each costs")
@pytest.mark.parametrize("kind", OBSTACLES)
@pytest.mark.parametrize("name", [VERSION, "slots", "slots/1.lock", "client", "client/multiproc/x", "slots/1"])
def test_whatever_stands_in_a_left_over_it_goes_and_nothing_behind_a_link_does(
    tmp_path: Path, kind: str, name: str
) -> None:
    place, victim = tmp_path / "place", tmp_path / "victim"
    place.mkdir()
    victim.mkdir()
    (victim / "1.lock").write_text("precious")
    path = left_over(place)
    entry = path / name
    if entry.is_dir():
        entry.rename(path / "moved")
    else:
        entry.unlink(missing_ok=True)
    if kind == "live link":
        entry.symlink_to(victim)
    else:
        OBSTACLES[kind](entry)
    assert swept_in_time(place) == [path]
    assert names(place) == []
    assert (victim / "1.lock").read_text() == "precious"


@pytest.mark.parametrize("name", [VERSION, "slots/1.lock"])
def test_a_lease_on_something_in_a_left_over_holds_nobody_up(tmp_path: Path, name: str) -> None:
    """Whoever opens such a file waits for the holder, up to 45 s (fcntl(2)), unless it says that it will not."""
    path = left_over(tmp_path)
    with (path / name).open("r+b") as leased:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        begun = time.monotonic()
        swept = swept_in_time(tmp_path)
        assert time.monotonic() - begun < 15
        # Who has a lease on the lock of a slot lives.
        assert swept == ([] if name == "slots/1.lock" else [path])


def test_folders_in_folders_are_swept_within_bounds(tmp_path: Path) -> None:
    path = left_over(tmp_path)
    inner = open_folder(path / "client")
    for _ in range(1100):
        os.mkdir("d", dir_fd=inner)
        deeper = open_folder("d", dir_fd=inner)
        os.close(inner)
        inner = deeper
    os.close(inner)
    before = descriptors()
    assert sweep(tmp_path, Owner()) == [path]
    assert (descriptors(), names(tmp_path)) == (before, [])


def test_what_is_left_of_a_sweep_is_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left_over(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(remove_tree, "MOST_ENTRIES", 2)
        assert sweep(tmp_path, Owner()) == []
    assert VERSION in names(path)
    assert sweep(tmp_path, Owner()) == [path]


def test_a_sweep_ends_in_time_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {left_over(tmp_path, f"promgun-{number}") for number in range(3)}
    with monkeypatch.context() as patched:
        patched.setattr(left_overs, "_SECONDS", -1.0)
        assert sweep(tmp_path, Owner()) == []
    assert {*sweep(tmp_path, Owner())} == paths


@needs_root
def test_folders_of_others_are_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can make a hundred thousand of them."""
    path = left_over(tmp_path)
    os.chown(path, NOBODY, NOBODY)
    opened: list[object] = []
    monkeypatch.setattr(left_overs, "open_folder", lambda *arguments: opened.append(arguments))
    assert sweep(tmp_path, Owner()) == []
    assert opened == []


def test_a_start_sweeps(tmp_path: Path) -> None:
    left_over(tmp_path)
    made = create_private(Owner(), [tmp_path])
    assert names(tmp_path) == [made.path.name]
    made.close()
