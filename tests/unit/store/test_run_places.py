"""The store's directory: private or the user's, held while anybody lives, left to nobody by mistake."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promgun.errors import StoreError
from promgun.store import run_places as module
from promgun.store.left_overs import sweep
from promgun.store.new_file import Owner
from promgun.store.run_directory import VERSION
from promgun.store.run_places import (
    INNER,
    check_named,
    create_private,
    find_run,
    take_over,
)
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
from promgun.store.new_file import Owner
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


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
def test_every_error_on_the_way_is_a_refusal_and_nothing_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call that the kernel may refuse: the user is told, and no descriptor is lost."""
    before = descriptors()
    for call in ("fstat", "mkdir", "listdir", "fchmod", "stat"):
        for count in range(1, 20):
            place = tmp_path / f"{call}{count}"
            calls, real = [0], getattr(os, call)

            def refuse(
                *arguments: Any, limit: int = count, calls: list[int] = calls, real: Any = real, **more: Any
            ) -> Any:
                calls[0] += 1
                if calls[0] == limit:
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                return real(*arguments, **more)

            # What is taken is left after the refusals: a number is not closed while nobody can say whose it is.
            with contextlib.suppress(StoreError), contextlib.ExitStack() as taken, monkeypatch.context() as patched:
                patched.setattr(os, call, refuse)
                taken.callback(take_over(place, Owner()).close)
            assert descriptors() == before, (call, count)
            if calls[0] < count:
                break


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for refuse in (take_over, check_named):
        with pytest.raises(StoreError, match="cannot be used"):
            refuse(tmp_path / "a" / "store", Owner())


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
