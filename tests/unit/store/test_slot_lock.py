"""Slots: who holds which, decided by the kernel, and freed by it whatever becomes of the holder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from promgun.store import slot_lock as module
from promgun.store.board import Role
from promgun.store.new_file import Owner
from promgun.store.process import ProcessStore
from promgun.store.slot_lock import SlotLock, claim_slot
from promgun.system.procfs import process_start
from promgun.system.safe_open import open_folder
from tests.support.store_fixtures import (
    OBSTACLES,
    descriptors,
    fork,
    in_fresh_interpreter,
    key_of,
    open_directory,
    read_values,
    slots_of,
    wait_for,
)

NOBODY = 65534


class Folder:
    """An open folder in which slots are claimed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = open_folder(path)

    def claim(self, owner: Owner = Owner()) -> SlotLock:  # noqa: B008 - it never changes
        """Take a slot."""
        return claim_slot(self.fd, owner)


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    yield folder
    os.close(folder.fd)


def test_the_lowest_free_slot_is_taken(slots: Folder) -> None:
    locks = [slots.claim() for _ in range(4)]
    assert [lock.number for lock in locks] == [1, 2, 3, 4]
    locks[1].release()
    locks[2].release()
    assert slots.claim().number == 2
    for lock in locks:
        lock.release()


def test_slots_that_are_said_to_be_taken_are_passed_over(slots: Folder) -> None:
    first, second = (claim_slot(slots.fd, Owner(), {1, 3}) for _ in range(2))
    assert (first.number, second.number) == (2, 4)
    first.release()
    second.release()


HARMS: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "replaced": lambda path: os.replace(path.with_name("other"), path),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_lock_file_that_is_gone_is_made_again(slots: Folder, harm: str) -> None:
    slots.path.joinpath("other").write_text("of somebody else")
    mine = slots.claim()
    assert not mine.heal(slots.path)
    HARMS[harm](slots.path / "1.lock")
    assert mine.heal(slots.path)
    assert not mine.heal(slots.path)
    other = slots.claim()
    assert other.number == 2
    mine.release()
    other.release()
    assert slots.claim().number == 1


def test_a_slot_that_another_process_took_meanwhile_is_told(slots: Folder) -> None:
    mine = slots.claim()
    (slots.path / "1.lock").unlink()
    other = slots.claim()
    assert other.number == 1
    with pytest.raises(OSError, match="another process has taken slot 1"):
        mine.heal(slots.path)
    mine.release()
    other.release()


def test_a_forgotten_slot_is_free(slots: Folder) -> None:
    open_before = descriptors()
    for _ in range(3):
        assert slots.claim().number == 1
    assert descriptors() == open_before


def test_releasing_twice_closes_nothing_of_others(slots: Folder) -> None:
    lock = slots.claim()
    lock.release()
    with (slots.path / "other").open("w") as other:
        lock.release()
        other.write("still open")
    assert lock.fd is None


def test_a_lock_file_is_its_owner_s_alone_and_holds_nothing(slots: Folder) -> None:
    before = os.umask(0)
    lock = slots.claim()
    os.umask(before)
    status = (slots.path / "1.lock").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_size) == (0o600, 0)
    lock.release()


@pytest.mark.needs_root("give files to another user")
def test_a_lock_file_that_root_makes_is_given_to_the_workers_user_and_no_other_is(slots: Folder) -> None:
    theirs = slots.path / "1.lock"
    theirs.touch(mode=0o644)
    locks = [slots.claim(Owner(NOBODY, NOBODY)) for _ in range(2)]
    assert [lock.number for lock in locks] == [1, 2]
    assert (theirs.stat().st_uid, (slots.path / "2.lock").stat().st_uid) == (0, NOBODY)
    for lock in locks:
        lock.release()


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 4096])
def test_what_stands_in_a_lock_file_is_left_as_it_is(slots: Folder, content: bytes) -> None:
    (slots.path / "1.lock").write_bytes(content)
    lock = slots.claim()
    assert lock.number == 1
    assert (slots.path / "1.lock").read_bytes() == content
    lock.release()


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_lock_file_is_passed_by_and_nobody_waits(tmp_path: Path, kind: str) -> None:
    OBSTACLES[kind](tmp_path / "1.lock")
    assert in_fresh_interpreter(_claim, tmp_path, timeout=30) == 2
    assert not (tmp_path / "nowhere").exists()


def _claim(path: str) -> int:
    signal.alarm(20)
    lock = Folder(Path(path)).claim(Owner(NOBODY, NOBODY))
    return lock.number


def test_a_lease_on_a_lock_file_holds_nobody_up(tmp_path: Path) -> None:
    with (tmp_path / "1.lock").open("w") as leased:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        begun = time.monotonic()
        assert in_fresh_interpreter(_claim, tmp_path, timeout=30) == 2
        assert time.monotonic() - begun < 15


def test_a_link_to_a_file_of_root_s_is_not_given_away(slots: Folder, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.touch()
    before = precious.stat()
    (slots.path / "1.lock").symlink_to(precious)
    os.link(precious, slots.path / "2.lock")
    lock = slots.claim(Owner(NOBODY, NOBODY))
    assert lock.number == 2
    after = precious.stat()
    assert (after.st_uid, after.st_mode, after.st_size) == (before.st_uid, before.st_mode, 0)
    lock.release()


def test_a_lock_file_that_is_deleted_or_replaced_hands_the_slot_to_nobody_who_looks_elsewhere(slots: Folder) -> None:
    """The search stays bounded and in order, whatever the workers' user does to the files."""
    first = slots.claim()
    (slots.path / "1.lock").unlink()
    second = slots.claim()
    (slots.path / "1.lock").replace(slots.path / "2.lock")
    third, fourth = slots.claim(), slots.claim()
    assert [lock.number for lock in (first, second, third, fourth)] == [1, 1, 1, 3]
    for lock in (first, second, third, fourth):
        lock.release()


def test_the_search_is_bounded(slots: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SLOTS", 5)
    for number in range(1, 100):
        (slots.path / f"{number}.lock").symlink_to("nowhere")
    open_before = descriptors()
    with pytest.raises(OSError, match="none of 5 slots") as raised:
        slots.claim()
    assert raised.value.errno == errno.EAGAIN
    assert descriptors() == open_before


def test_no_place_for_a_lock_file_is_an_error(slots: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def full(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space"):
        slots.claim()


# ---- processes


def _killed_holders(path: str) -> list[int]:
    """Two children at a time are given slots; each is killed, and the next must get the same."""
    store = ProcessStore()
    store.open(open_directory(path))
    taken = []
    for _ in range(5):
        pids, slots = [], []
        for _ in range(2):
            slots.append(store.reserve())
            pids.append(fork(lambda: time.sleep(60)))
        taken += [slot.number for slot in slots if slot is not None]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        store.forget(slot for slot in slots if slot is not None)
    return taken


def test_a_kill_frees_the_slot(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_killed_holders, tmp_path) == [1, 2] * 5


def _younger_siblings(path: str) -> list[int]:
    """A child is killed while younger ones live, which inherited everything the parent had at their fork."""
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot(Role.MASTER)
    kept, pids = [], []
    for _ in range(4):
        slot = store.reserve()
        assert slot is not None
        kept.append(slot)
        pids.append(fork(lambda: time.sleep(60)))
    taken = []
    for round_ in range(3):
        os.kill(pids[round_], signal.SIGKILL)
        os.waitpid(pids[round_], 0)
        store.forget([kept[round_]])
        slot = store.reserve()
        assert slot is not None
        taken.append(slot.number)
        kept.append(slot)
        pids.append(fork(lambda: time.sleep(60)))
    for pid in pids[3:]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return taken


def test_siblings_do_not_hold_each_others_slots(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_younger_siblings, tmp_path) == [1, 2, 3]


def _inherited(path: str) -> list[list[str]]:
    """Each child tells which locks hang on what it has open, itself or through a mapping."""
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot(Role.MASTER)
    reading, writing = os.pipe()
    kept, told = [], []

    def tell() -> None:
        held = set()
        for number in os.listdir("/proc/self/fd"):
            # proc(5): a line for each lock of the open file description
            with contextlib.suppress(FileNotFoundError):
                if "lock:" in Path("/proc/self/fdinfo", number).read_text():
                    held.add(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        os.write(writing, json.dumps(sorted(held)).encode())

    for reserve in (True, True):
        kept.append(store.reserve())
        assert reserve
        wait_for(fork(tell))
        told.append(json.loads(os.read(reading, 4096)))
    return told


def test_a_child_holds_no_lock_but_its_own(tmp_path: Path) -> None:
    """Neither the run's nor the master's: a stranger that a worker starts would hold the run up for ever."""
    assert in_fresh_interpreter(_inherited, tmp_path) == [
        ["1.lock"],
        ["2.lock"],
    ]


def _family(path: str) -> list[int]:
    """Parent, child and grandchild each count once; the child ends before the grandchild does."""
    store = ProcessStore()
    store.open(open_directory(path))
    store.role = Role.OTHER

    def count() -> int:
        cells, (index,) = store.allocate("counter", [key_of(1)], lambda *_: None)
        cells[index] += 1.0
        assert store.number is not None
        return store.number

    numbers = [count()]
    reading, writing = os.pipe()
    may_end, end = os.pipe()
    counted, has_counted = os.pipe()

    def grandchild() -> None:
        os.close(end)
        os.write(writing, bytes([count()]))
        os.write(has_counted, b".")
        os.read(may_end, 1)

    def child() -> None:
        os.write(writing, bytes([count()]))
        fork(grandchild)
        os.read(counted, 1)

    lock = store.reserve()
    wait_for(fork(child))
    numbers += sorted(os.read(reading, 1)[0] for _ in range(2))
    assert lock is not None
    store.forget([lock])
    # The child is gone, its own child is not: it must hold its slot and no other.
    freed = Folder(slots_of(path)).claim()
    numbers.append(freed.number)
    freed.release()
    os.close(end)
    return numbers


def test_grandchildren_have_slots_of_their_own(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_family, tmp_path) == [1, 2, 3, 2]
    files = sorted(slots_of(tmp_path).glob("*.counter"))
    assert [read_values(path) for path in files] == [{key_of(1): 1.0}] * 3


def _reserved(path: str) -> list[int | None]:
    """A reserved slot is the next child's alone; a child without one takes the lowest free one when it needs it."""
    store = ProcessStore()
    store.open(open_directory(path))
    reading, writing = os.pipe()

    def tell() -> None:
        before = store.number if store.number is not None else 99
        number = store.own_slot()
        assert number is not None
        os.write(writing, bytes([before, number, store.role]))

    reserved = store.reserve()
    for _ in range(2):
        wait_for(fork(tell))
    assert store.number is None
    told = [*os.read(reading, 3), *os.read(reading, 3)]
    return [None if reserved is None else reserved.number, *told]


def test_a_reserved_slot_goes_to_the_next_child_only(tmp_path: Path) -> None:
    found = in_fresh_interpreter(_reserved, tmp_path)
    assert found == [1, 1, 1, Role.WORKER, 99, 1, Role.OTHER]


def _not_reaped(path: str) -> list[int]:
    """A worker ends; another process asks for a slot before its master has reaped it, and once more afterwards."""
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot(Role.MASTER)

    def own_slot() -> None:
        store.own_slot(Role.WORKER)

    reserved = store.reserve()
    pid = fork(own_slot)
    assert reserved is not None
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    reading, writing = os.pipe()

    def ask() -> None:
        os.write(writing, bytes([store.own_slot(Role.OTHER) or 0]))

    wait_for(fork(ask))
    os.waitpid(pid, 0)
    wait_for(fork(ask))
    other_s = store.reserve()
    assert other_s is not None
    return [*os.read(reading, 1), *os.read(reading, 1), other_s.number]


def test_a_slot_is_not_given_away_before_its_worker_is_reaped(tmp_path: Path) -> None:
    """Its master reads what it left, and gives the slot to no worker of its own before it has forgotten it."""
    assert in_fresh_interpreter(_not_reaped, tmp_path) == [2, 1, 2]


def _wiped(path: str) -> list[int]:
    """Somebody removes files of living owners; another process asks for a slot before they are made again."""
    store = ProcessStore()
    store.open(open_directory(path))
    store.own_slot(Role.MASTER)
    ready, told = os.pipe()

    def owner(role: Role) -> Callable[[], None]:
        def own_slot() -> None:
            os.write(told, bytes([store.own_slot(role) or 0]))
            time.sleep(60)

        return own_slot

    assert store.reserve() is not None
    worker = fork(owner(Role.WORKER))
    assert os.read(ready, 1) == b"\1"
    store.worker_table.forked(1, worker, process_start(worker), time.monotonic_ns())
    child = fork(owner(Role.OTHER))
    assert os.read(ready, 1) == b"\2"
    found: list[int] = []
    try:
        for removed in (("1.lock", "2.lock"), ("1", "1.lock")):
            for name in removed:
                (slots_of(path) / name).unlink()
            wait_for(fork(lambda: os.write(told, bytes([store.own_slot(Role.OTHER) or 0]))))
            found += os.read(ready, 1)
    finally:
        for pid in (worker, child):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    wait_for(fork(lambda: os.write(told, bytes([store.own_slot(Role.OTHER) or 0]))))
    return [*found, *os.read(ready, 1)]


def test_a_slot_whose_lock_file_was_removed_is_not_given_away_while_its_owner_lives(tmp_path: Path) -> None:
    assert in_fresh_interpreter(_wiped, tmp_path) == [3, 3, 1]


def _race(path: str) -> list[list[int]]:
    """Several processes take and free slots at once; no two may ever hold the same."""
    slots = Folder(Path(path))
    marks = slots.path / "marks"
    marks.mkdir()

    def work() -> None:
        for _ in range(100):
            slot = slots.claim()
            mark = marks / str(slot.number)
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            mark.unlink()
            slot.release()

    wait_for(*[fork(work) for _ in range(4)])
    return [sorted(int(name.partition(".")[0]) for name in os.listdir(path) if name.endswith(".lock"))]


def test_no_two_processes_hold_the_same_slot(tmp_path: Path) -> None:
    ((*taken,),) = in_fresh_interpreter(_race, tmp_path)
    assert taken == list(range(1, len(taken) + 1))
    assert len(taken) <= 4
