"""The store's directory: private or the user's, held while anybody lives, left to nobody by mistake."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promgun.errors import StoreError
from promgun.store import run_places as module
from promgun.store.files import Owner
from promgun.store.left_overs import sweep
from promgun.store.process import ProcessStore
from promgun.store.run_directory import VERSION, DirectoryIdentity, RunDirectory
from promgun.store.run_places import (
    INNER,
    attach,
    check_named,
    create_private,
    find_run,
    take_over,
)
from promgun.system import remove_tree
from promgun.system.safe_open import open_folder
from tests.support.store_fixtures import (
    OBSTACLES,
    ROOT,
    descriptors,
    fork,
    in_fresh_interpreter,
    open_directory,
    public_folder,
    wait_for,
)

HOLD = """
import sys
from pathlib import Path
from promgun.store.files import Owner
from promgun.store.run_places import create_private, take_over
from tests.support.store_fixtures import open_directory
held = {kind}
print(held.path, flush=True)
sys.stdin.read()
held.close()
"""
NOBODY = 65534

needs_root = pytest.mark.needs_root("give files to another user")


@contextlib.contextmanager
def holder(kind: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has a directory, which it leaves at the end of its input."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD.format(kind=kind)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def line(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as path:
        yield path


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


# ---- private


def test_a_private_directory_is_private_and_goes(tmp_path: Path) -> None:
    made = create_private(Owner(), [tmp_path])
    assert made.path.parent == tmp_path
    assert names(tmp_path) == [made.path.name]
    assert made.private
    mine = [made.is_mine]
    made.close()
    assert names(tmp_path) == []
    mine.append(made.is_mine)
    made.close()
    assert mine == [True, False]


def test_shared_memory_comes_first_unless_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, temporary = tmp_path / "shm", tmp_path / "tmp"
    shared.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(module, "SHARED_MEMORY", shared)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(temporary))
    first = create_private(Owner())
    assert first.path.parent == shared
    first.close()
    real = os.statvfs

    def full(path: Any) -> Any:
        return (
            type("Full", (), {"f_bavail": 3, "f_frsize": 4096, "f_favail": 9, "f_files": 9})()
            if path == shared
            else real(path)
        )

    monkeypatch.setattr(os, "statvfs", full)
    second = create_private(Owner())
    assert second.path.parent == temporary
    second.close()
    shared.rmdir()
    third = create_private(Owner())
    assert third.path.parent == temporary
    third.close()


def test_where_no_place_can_hold_it_the_user_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can be made in") as raised:
        create_private(Owner(), [tmp_path / "gone", tmp_path / "away"])
    assert str(tmp_path / "away") in str(raised.value)


def test_a_place_that_fails_half_way_is_left_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, good = tmp_path / "full", tmp_path / "good"
    full.mkdir()
    good.mkdir()
    real = os.open

    def no_inode(path: Any, *rest: Any, **more: Any) -> int:
        if path == VERSION and next(full.glob(".promgun-*"), None):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", no_inode)
    made = create_private(Owner(), [full, good])
    assert made.path.parent == good
    assert names(full) == []
    made.close()


# ---- the last one to leave


def test_the_last_master_removes_a_private_directory(tmp_path: Path) -> None:
    made = create_private(Owner(), [tmp_path])
    with holder(f"open_directory({str(made.path)!r})") as other:
        assert line(other) == made.path
        made.close()
        assert made.path.is_dir()
        other.communicate()
    assert made.path.is_dir()
    assert sweep(tmp_path, Owner()) == [made.path]


def _workers_pass_the_clean_up_too(path: str) -> bool:
    made = create_private(Owner(), [Path(path)])
    wait_for(fork(made.close))
    still_there = made.path.is_dir()
    made.close()
    return still_there


def test_a_forked_worker_removes_nothing(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_workers_pass_the_clean_up_too, tmp_path) is True
    assert names(tmp_path) == []


def _daemon(path: str) -> None:
    made = create_private(Owner(), [Path(path)])

    def detached() -> None:
        made.close_in_this_process()
        made.close()

    wait_for(fork(detached))


def test_a_daemon_takes_the_directory_over(tmp_path: Path) -> None:
    in_fresh_interpreter(_daemon, tmp_path)
    assert names(tmp_path) == []


def test_a_users_directory_is_never_removed(tmp_path: Path) -> None:
    named = take_over(tmp_path / "store", Owner())
    named.close()
    assert names(tmp_path / "store") == [INNER]


# ---- left-overs


def left_over(place: Path, name: str = "promgun-dead") -> Path:
    """A run's directory that nobody holds, with something in each part."""
    path = place / name
    directory = open_directory(path)
    (directory.slots / "1").write_bytes(b"old")
    (directory.slots / "1.lock").touch()
    (directory.multiproc / "counter_slot1.db").write_bytes(b"old")
    (directory.master / "m0").write_bytes(b"old")
    directory.close()
    return path


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
    return attach(path, Owner(), DirectoryIdentity(path.stat().st_dev, path.stat().st_ino), private=True)


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


def test_a_start_sweeps(tmp_path: Path) -> None:
    left_over(tmp_path)
    made = create_private(Owner(), [tmp_path])
    assert names(tmp_path) == [made.path.name]
    made.close()


# ---- the user's


def test_a_users_directory_is_made_when_missing(tmp_path: Path) -> None:
    outer = tmp_path / "a" / "b"
    named = take_over(outer, Owner())
    assert stat.S_IMODE(outer.stat().st_mode) == 0o700
    assert named.path == outer / INNER
    assert named.second_client == outer
    assert not named.private
    named.close()


def test_what_an_earlier_run_left_is_wiped_and_what_is_the_users_stays(tmp_path: Path) -> None:
    left_over(tmp_path, INNER)
    (tmp_path / INNER / "slots" / "inner").mkdir()
    theirs = ["app.db", "counter_slot1.db", "counter_7.db", "master-slot0.json", "notes.txt", "gunicorn.conf.py"]
    for name in theirs:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "histogram_8.db").symlink_to(tmp_path / "notes.txt")
    named = take_over(tmp_path, Owner())
    assert names(tmp_path) == sorted([INNER, "histogram_8.db", *theirs])
    assert [list(part.iterdir()) for part in (named.slots, named.master, named.multiproc)] == [[], [], []]
    assert (tmp_path / "notes.txt").read_bytes() == b"x"
    named.close()


@pytest.mark.parametrize("kind", ["take_over(Path({!r}), Owner())", "open_directory({!r} + '/.promgun')"])
def test_a_directory_in_use_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    with holder(kind.format(str(tmp_path))) as other:
        assert line(other) == tmp_path / INNER
        (tmp_path / INNER / "slots" / "1").write_bytes(b"alive")
        with pytest.raises(StoreError, match="in use by another running server"):
            take_over(tmp_path, Owner())
        check_named(tmp_path, Owner())
        assert (tmp_path / INNER / "slots" / "1").read_bytes() == b"alive"
        other.communicate()
    take_over(tmp_path, Owner()).close()


def test_a_directory_in_which_workers_have_outlived_their_master_is_in_use(tmp_path: Path) -> None:
    left_over(tmp_path, INNER)
    with (tmp_path / INNER / "slots" / "3.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="in use by another running server"):
            take_over(tmp_path, Owner())
        assert (tmp_path / INNER / "slots" / "1").read_bytes() == b"old"
    take_over(tmp_path, Owner()).close()


def refusal(path: Path, owner: Owner) -> str:
    """Return how a directory is refused, by the check of the configuration in the same words as by the start."""
    with pytest.raises(StoreError) as checked:
        check_named(path, owner)
    before = path.parent.exists() and names(path.parent)
    with pytest.raises(StoreError) as refused:
        take_over(path, owner)
    assert (str(checked.value), checked.value.hint) == (str(refused.value), refused.value.hint)
    assert (path.parent.exists() and names(path.parent)) == before
    return f"{refused.value}\n{refused.value.hint}"


@needs_root
def test_another_users_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    assert "belongs to another user" in refusal(tmp_path, Owner())
    assert "belongs to another user" in refusal(tmp_path, Owner(1234))
    take_over(tmp_path, Owner(NOBODY, NOBODY)).close()
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert "belongs to another user" in refusal(tmp_path, Owner(NOBODY))


@needs_root
def test_a_run_that_another_user_left_or_planted_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    left_over(tmp_path, INNER)
    os.chown(tmp_path / INNER, NOBODY, NOBODY)
    with pytest.raises(StoreError, match="belongs to another user") as raised:
        take_over(tmp_path, Owner(NOBODY, NOBODY))
    assert f"rm -r {tmp_path / INNER}" in str(raised.value.hint)
    assert (tmp_path / INNER / "slots" / "1").read_bytes() == b"old"


@pytest.mark.parametrize("kind", OBSTACLES.keys() - {"directory"})
def test_whatever_is_planted_for_the_run_is_refused_and_not_followed(tmp_path: Path, kind: str) -> None:
    outer, victim = tmp_path / "outer", tmp_path / "victim"
    outer.mkdir()
    victim.mkdir(mode=0o700)
    (victim / "precious").touch()
    if kind == "live link":
        (outer / INNER).symlink_to(victim)
    else:
        OBSTACLES[kind](outer / INNER)
    with pytest.raises(StoreError, match="cannot be used"):
        take_over(outer, Owner(NOBODY, NOBODY))
    assert names(victim) == ["precious"]
    assert victim.stat().st_uid == os.geteuid()


@needs_root
def test_a_directory_is_given_to_the_workers_user(tmp_path: Path) -> None:
    path = tmp_path / "store"
    named = take_over(path, Owner(NOBODY, NOBODY))
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    assert named.path.stat().st_uid == 0
    named.close()


@needs_root
def test_a_directory_for_everybody_stays_root_s(tmp_path: Path) -> None:
    """Like /tmp."""
    tmp_path.chmod(0o1777)
    take_over(tmp_path, Owner(NOBODY, NOBODY)).close()
    assert (tmp_path.stat().st_uid, stat.S_IMODE(tmp_path.stat().st_mode)) == (0, 0o1777)


def test_a_directory_that_everybody_can_write_is_refused_unless_it_is_sticky(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    text = refusal(tmp_path, Owner())
    assert "writable by everybody" in text
    assert f"chmod o-w {tmp_path}" in text
    assert names(tmp_path) == []
    tmp_path.chmod(0o1777)
    take_over(tmp_path, Owner()).close()


@needs_root
def test_a_sticky_directory_is_its_owner_s(tmp_path: Path) -> None:
    """Who may put another in the place of whatever lies there (unlink(2), EPERM)."""
    tmp_path.chmod(0o1777)
    os.chown(tmp_path, NOBODY, NOBODY)
    assert "belongs to another user" in refusal(tmp_path, Owner(1234, 1234))
    assert "belongs to another user" in refusal(tmp_path, Owner())


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "refused"),
    [
        (0o755, 0, 0, False),
        (0o775, 0, 0, False),
        (0o1777, 0, 0, False),
        (0o1775, 0, NOBODY, False),
        (0o775, 0, NOBODY, True),
        (0o777, 0, 0, True),
        (0o755, NOBODY, 0, True),
        (0o755, 4321, 0, True),
        (0o1777, NOBODY, 0, True),
    ],
)
@pytest.mark.parametrize("depth", ["right above", "further up"])
@needs_root
def test_under_a_root_master_only_root_may_write_above(
    tmp_path: Path, mode: int, uid: int, gid: int, depth: str, *, refused: bool
) -> None:
    above = tmp_path / "above"
    path = above / "store" if depth == "right above" else above / "safe" / "store"
    path.mkdir(parents=True, mode=0o700)
    os.chown(above, uid, gid)
    above.chmod(mode)
    owner = Owner(NOBODY, NOBODY)
    if refused:
        text = refusal(path, owner)
        assert f"lies in {above}, where not only root may write" in text
        assert path.stat().st_uid == 0
    else:
        check_named(path, owner)
        take_over(path, owner).close()


@needs_root
def test_nothing_is_made_where_others_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert "where not only root may write" in refusal(tmp_path / "a" / "b", Owner(NOBODY, NOBODY))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("mode", "gid", "refused"), [(0o775, 0, False), (0o1775, NOBODY, False), (0o775, NOBODY, True)]
)
@needs_root
def test_a_directory_of_root_s_is_written_by_nobody_else(tmp_path: Path, mode: int, gid: int, *, refused: bool) -> None:
    path = tmp_path / "store"
    path.mkdir()
    os.chown(path, 0, gid)
    path.chmod(mode)
    if refused:
        assert "may be written by others than root" in refusal(path, Owner(NOBODY, NOBODY))
    else:
        take_over(path, Owner(NOBODY, NOBODY)).close()


@needs_root
def test_for_other_masters_there_is_no_rule_on_what_is_above(public: Path) -> None:
    """A folder in an emptyDir of Kubernetes, which everybody may write."""
    public.chmod(0o777)
    path = public / "store"

    def work() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        check_named(path, Owner())
        take_over(path, Owner()).close()
        check_named(path, Owner())
        take_over(path, Owner()).close()

    wait_for(fork(work))
    assert path.stat().st_uid == NOBODY


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    assert "cannot be used" in refusal(path, Owner())
    assert path.read_text() == "text"


def test_a_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(StoreError, match="it is a link"):
        take_over(tmp_path / "link", Owner())
    with pytest.raises(StoreError, match="it is a link"):
        check_named(tmp_path / "link", Owner())
    assert names(tmp_path / "target") == []


def test_a_run_is_found_by_its_own_path_and_by_the_one_that_was_named(tmp_path: Path) -> None:
    named = take_over(tmp_path / "store", Owner())
    assert find_run(named.path) == find_run(tmp_path / "store") == named.path
    assert find_run(tmp_path) is None
    with pytest.raises(OSError, match="No such file"):
        find_run(tmp_path / "gone")
    named.close()


# ---- a second master on the same store


def identity_of(path: Path) -> DirectoryIdentity:
    """Return which directory a path leads to."""
    fd = open_folder(path)
    try:
        return DirectoryIdentity.of(fd)
    finally:
        os.close(fd)


def test_attaching_wipes_nothing(tmp_path: Path) -> None:
    named = take_over(tmp_path, Owner())
    (named.slots / "1").write_bytes(b"counting")
    second = attach(named.path, Owner(), named.identity, private=False, second_client=tmp_path)
    assert (named.slots / "1").read_bytes() == b"counting"
    assert (second.identity, second.clients) == (named.identity, named.clients)
    for directory in (named, second):
        directory.close()


def test_what_is_gone_cannot_be_attached(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is gone"):
        attach(tmp_path / "gone", Owner(), identity_of(tmp_path), private=True)


@pytest.mark.parametrize("kind", ["another directory", "a link to the same"])
def test_what_stands_at_the_path_now_is_not_attached_for_it(tmp_path: Path, kind: str) -> None:
    """The old master hands on which directory it is, not only where it was."""
    first = create_private(Owner(), [tmp_path])
    before = descriptors()
    moved = first.path.rename(tmp_path / "moved")
    if kind == "another directory":
        open_directory(first.path).close()
    else:
        first.path.symlink_to(moved)
    with pytest.raises(StoreError, match=r"Somebody replaced the store|is gone"):
        attach(first.path, Owner(), first.identity, private=True)
    assert descriptors() == before
    attach(moved, Owner(), first.identity, private=False).close()
    os.close(first.fd)


def test_what_is_being_removed_cannot_be_attached(tmp_path: Path) -> None:
    fd = open_folder(tmp_path)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="is being removed"):
        attach(tmp_path, Owner(), DirectoryIdentity.of(fd), private=True)
    os.close(fd)


def test_leaving_frees_every_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    for _ in range(5):
        create_private(Owner(), [tmp_path]).close()
        take_over(tmp_path / "named", Owner()).close()
        with contextlib.suppress(StoreError):
            attach(tmp_path / "gone", Owner(), DirectoryIdentity(0, 0), private=True)
    held = take_over(tmp_path / "named", Owner())
    with pytest.raises(StoreError):
        take_over(tmp_path / "named", Owner())
    held.close()
    left_over(tmp_path)
    sweep(tmp_path, Owner())
    assert descriptors() == before


@needs_root
def test_a_store_of_other_workers_cannot_be_attached(tmp_path: Path) -> None:
    """SIGUSR2 with another ``user`` in the configuration: the new workers could write in none of its slots."""
    first = create_private(Owner(NOBODY), [tmp_path])
    before = descriptors()
    with pytest.raises(StoreError, match="the workers of another user"):
        attach(first.path, Owner(NOBODY - 1), first.identity, private=True)
    assert descriptors() == before
    attach(first.path, Owner(NOBODY), first.identity, private=True).close()
    first.close()
