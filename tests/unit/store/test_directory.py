"""The store's directory: private or the user's, held while anybody lives, left to nobody by mistake."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
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
from promgun.store import directory as module
from promgun.store.directory import LOCK_NAME, StoreDirectory, attach, create_private, sweep, take_over
from promgun.store.files import Owner
from tests.support.store_fixtures import ROOT, fork, in_fresh_interpreter, wait_for

HOLD = """
import sys
from pathlib import Path
from promgun.store.directory import attach, create_private, take_over
from promgun.store.files import Owner
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


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


# ---- private


def test_a_private_directory_is_private_and_goes(tmp_path: Path) -> None:
    made = create_private(Owner(), [tmp_path])
    assert made.path.parent == tmp_path
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
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
        if str(path).startswith(str(full)) and str(path).endswith(LOCK_NAME):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", no_inode)
    made = create_private(Owner(), [full, good])
    assert made.path.parent == good
    assert names(full) == []
    made.close()


@needs_root
def test_a_private_directory_belongs_to_the_workers_user(tmp_path: Path) -> None:
    made = create_private(Owner(NOBODY, NOBODY), [tmp_path])
    for path in (made.path, made.path / LOCK_NAME):
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    made.close()


# ---- the last one to leave


def test_the_last_master_removes_a_private_directory(tmp_path: Path) -> None:
    made = create_private(Owner(), [tmp_path])
    with holder(f"attach(Path({str(made.path)!r}), Owner(), private=True)") as other:
        assert line(other) == made.path
        made.close()
        assert made.path.is_dir()
        other.communicate()
    assert names(tmp_path) == []


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
        made.adopt()
        made.close()

    wait_for(fork(detached))


def test_a_daemon_takes_the_directory_over(tmp_path: Path) -> None:
    in_fresh_interpreter(_daemon, tmp_path)
    assert names(tmp_path) == []


def test_a_users_directory_is_never_removed(tmp_path: Path) -> None:
    named = take_over(tmp_path / "store", Owner())
    named.close()
    assert (tmp_path / "store").is_dir()


# ---- left-overs


def left_over(place: Path, name: str = "promgun-dead") -> Path:
    path = place / name
    path.mkdir(mode=0o700)
    (path / LOCK_NAME).touch()
    (path / "counter_slot0.db").write_bytes(b"old")
    return path


def test_left_overs_are_swept_and_nothing_else(tmp_path: Path) -> None:
    dead = left_over(tmp_path)
    without_lock = tmp_path / "promgun-somebody-elses"
    without_lock.mkdir()
    target = left_over(tmp_path, "kept")
    (tmp_path / "promgun-link").symlink_to(target)
    (tmp_path / "promgun-file").write_text("text")
    (tmp_path / "other").mkdir()
    assert sweep(tmp_path) == [dead]
    assert names(tmp_path) == ["kept", "other", "promgun-file", "promgun-link", "promgun-somebody-elses"]
    assert names(target) == ["counter_slot0.db", LOCK_NAME]


def test_what_is_held_is_not_swept(tmp_path: Path) -> None:
    with holder(f"create_private(Owner(), [Path({str(tmp_path)!r})])") as other:
        path = line(other)
        assert sweep(tmp_path) == []
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert sweep(tmp_path) == [path]


def _orphan(path: str) -> int:
    """The parent dies, its child lives on and holds the inherited lock."""
    made = create_private(Owner(), [Path(path)])
    reading, writing = os.pipe()

    def orphan() -> None:
        # Our output is a pipe, which ends when nobody has it open any more.
        os.closerange(0, 3)
        time.sleep(60)

    def parent() -> None:
        pid = fork(orphan)
        os.write(writing, str(pid).encode())
        os._exit(0)

    wait_for(fork(parent))
    os.close(made._lock_fd)
    return int(os.read(reading, 20))


def test_what_an_orphan_holds_is_not_swept(tmp_path: Path) -> None:
    orphan = in_fresh_interpreter(_orphan, tmp_path)
    try:
        assert sweep(tmp_path) == []
    finally:
        os.kill(orphan, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not sweep(tmp_path):
        assert time.monotonic() < deadline
    assert names(tmp_path) == []


def test_a_directory_being_made_is_swept_only_when_old(tmp_path: Path) -> None:
    young, old = tmp_path / ".promgun-young", tmp_path / ".promgun-old"
    young.mkdir()
    old.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    assert sweep(tmp_path) == [old]


@needs_root
def test_left_overs_of_other_users_are_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_over(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert sweep(tmp_path) == []


def test_a_start_sweeps(tmp_path: Path) -> None:
    left_over(tmp_path)
    made = create_private(Owner(), [tmp_path])
    assert names(tmp_path) == [made.path.name]
    made.close()


# ---- the user's


def test_a_users_directory_is_made_when_missing(tmp_path: Path) -> None:
    named = take_over(tmp_path / "a" / "b", Owner())
    assert stat.S_IMODE(named.path.stat().st_mode) == 0o700
    assert not named.private
    named.close()


def test_what_an_earlier_run_left_is_wiped_and_what_is_the_users_stays(tmp_path: Path) -> None:
    ours = [
        "counter_slot0.db",
        "counter_4711.db",
        "gauge_livesum_slot12.db",
        "histogram_slot3.db",
        "summary_1-2.db",
        ".bad-counter_slot0.db",
        ".new-histogram_slot1.db",
        "slot-0.lock",
        "slot-17.lock",
        "master-slot0.json",
        ".new-master-slot0.json",
    ]
    theirs = [
        "app.db",
        "counter.db",
        "counter_slot0.db.bak",
        "slot-machine.txt",
        "slot-0.lock.txt",
        "master-slots.txt",
        ".bad-habits",
        ".new-project",
        "notes.txt",
        "gunicorn.conf.py",
    ]
    for name in ours + theirs:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "counter_7.db").mkdir()
    (tmp_path / "histogram_8.db").symlink_to(tmp_path / "notes.txt")
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(tmp_path / "gunicorn-4711.ctl"))
    named = take_over(tmp_path, Owner())
    assert names(tmp_path) == sorted([*theirs, "counter_7.db", LOCK_NAME])
    named.close()


@pytest.mark.parametrize("kind", ["take_over(Path({!r}), Owner())", "attach(Path({!r}), Owner(), private=False)"])
def test_a_directory_in_use_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    with holder(kind.format(str(tmp_path))) as other:
        assert line(other) == tmp_path
        (tmp_path / "counter_slot0.db").write_bytes(b"alive")
        with pytest.raises(StoreError, match="in use by another live run"):
            take_over(tmp_path, Owner())
        assert (tmp_path / "counter_slot0.db").read_bytes() == b"alive"
        other.communicate()
    take_over(tmp_path, Owner()).close()


@needs_root
def test_another_users_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    with pytest.raises(StoreError, match="belongs to another user"):
        take_over(tmp_path, Owner())
    take_over(tmp_path, Owner(NOBODY, NOBODY)).close()
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    with pytest.raises(StoreError, match="belongs to another user"):
        take_over(tmp_path, Owner(NOBODY))


@needs_root
def test_a_directory_is_given_to_the_workers_user(tmp_path: Path) -> None:
    path = tmp_path / "store"
    named = take_over(path, Owner(NOBODY, NOBODY))
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    named.close()


def test_a_directory_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(StoreError, match="writable by everybody") as raised:
        take_over(tmp_path, Owner())
    assert f"chmod o-w {tmp_path}" in str(raised.value.hint)
    assert names(tmp_path) == []


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    with pytest.raises(StoreError, match="cannot be made"):
        take_over(path, Owner())
    assert path.read_text() == "text"


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("text")
    (tmp_path / LOCK_NAME).symlink_to(tmp_path / "target")
    with pytest.raises(StoreError, match="not writable"):
        take_over(tmp_path, Owner())


# ---- a second master on the same store


def test_attaching_wipes_nothing(tmp_path: Path) -> None:
    named = take_over(tmp_path, Owner())
    (tmp_path / "counter_slot0.db").write_bytes(b"counting")
    second = attach(tmp_path, Owner(), private=False)
    assert (tmp_path / "counter_slot0.db").read_bytes() == b"counting"
    for directory in (named, second):
        directory.close()


def test_what_is_gone_cannot_be_attached(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is gone"):
        attach(tmp_path / "gone", Owner(), private=True)


def test_what_is_being_removed_cannot_be_attached(tmp_path: Path) -> None:
    import fcntl  # noqa: PLC0415 - for this alone

    with (tmp_path / LOCK_NAME).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="is being removed"):
            attach(tmp_path, Owner(), private=True)


def test_leaving_frees_every_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        create_private(Owner(), [tmp_path]).close()
        take_over(tmp_path / "named", Owner()).close()
        with contextlib.suppress(StoreError):
            attach(tmp_path / "gone", Owner(), private=True)
    held: StoreDirectory = take_over(tmp_path / "named", Owner())
    with pytest.raises(StoreError):
        take_over(tmp_path / "named", Owner())
    held.close()
    assert len(os.listdir("/proc/self/fd")) == before
