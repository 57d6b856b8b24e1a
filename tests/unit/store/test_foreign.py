"""Processes that never heard of promgun: their value files are on the page, and folded once nobody writes them."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from promgun.store.client_claim import CLAIM_FILE
from promgun.store.folded_file import MOST_ORIGINS, Folded, Origin, encode_folded, parse_folded, taken_in
from promgun.store.folding import fold_dead
from promgun.store.foreign_files import MOST_FILES, DeadFile, find_foreign, hold_if_dead
from promgun.store.foreign_reader import ForeignReader
from promgun.store.new_file import Owner
from promgun.store.reader import StoreReader
from tests.support.harness import wait_until
from tests.support.runs import PLACES, StockFile, as_user, ended, key, kill_at_call, private_run, values_in
from tests.support.store_fixtures import totals

if TYPE_CHECKING:
    from collections.abc import Iterator

from promgun.store.run_directory import RunDirectory

A, B = key(n="a"), key(n="b")


@pytest.fixture(params=PLACES, ids=str)
def run(request: pytest.FixtureRequest) -> Iterator[RunDirectory]:
    with private_run(request.param) as run:
        # the first pass removes what an earlier run has left
        assert fold_dead(run).errors == []
        yield run


def page(run: RunDirectory, kind: str = "counter", reader: ForeignReader | None = None) -> dict[str, float]:
    contents = {content.kind: content.data for content in (reader or ForeignReader(run)).read().contents}
    return values_in(contents[kind]) if kind in contents else {}


def stock(folder: Path) -> dict[str, float]:
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - not before a value class is set

    families = MultiProcessCollector(None, str(folder)).collect()  # type: ignore[no-untyped-call] # upstream
    return {
        f"{sample.name} {sorted(sample.labels.items())}": sample.value for one in families for sample in one.samples
    }


def files_in(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name != CLAIM_FILE)


def test_a_living_one_is_read_and_left_alone(run: RunDirectory) -> None:
    file = StockFile(run.multiproc, "counter", 100, {A: 3.0})
    reader = ForeignReader(run)
    assert page(run, reader=reader) == {A: 3.0}
    assert fold_dead(run, reader).taken == 0
    file.set({A: 4.0, B: 1.0})
    assert page(run, reader=reader) == {A: 4.0, B: 1.0}
    assert files_in(run.multiproc) == ["counter_100.db"]
    file.end()


def test_an_ended_one_is_taken_in_once(run: RunDirectory) -> None:
    ended(run.multiproc, "counter", 100, {A: 3.0})
    ended(run.multiproc, "counter", 101, {A: 4.0, B: 1.0})
    before = stock(run.multiproc)
    assert fold_dead(run).taken == 2
    assert files_in(run.multiproc) == ["counter_folded.db"]
    assert page(run) == {A: 7.0, B: 1.0}
    assert stock(run.multiproc) == before
    assert fold_dead(run).taken == 0
    ended(run.multiproc, "counter", 100, {A: 0.5})
    assert fold_dead(run).taken == 1
    assert page(run) == {A: 7.5, B: 1.0}
    assert stock(run.multiproc)["jobs_total [('n', 'a')]"] == 7.5


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([], id="here"),
        pytest.param(
            ["unshare", "--pid", "--fork", "--kill-child"],
            id="in another pid namespace",
            marks=[
                pytest.mark.needs_root("make a pid namespace"),
                pytest.mark.needs("unshare"),
            ],
        ),
    ],
)
def test_a_process_is_told_dead_by_its_lease(run: RunDirectory, command: list[str]) -> None:
    """It lives although its pid is nobody's here."""
    code = (
        "import sys; from prometheus_client import values, Counter;"
        "values.ValueClass = values.MultiProcessValue(lambda: 4194999);"
        "import prometheus_client.metrics as m; m.values.ValueClass = values.ValueClass;"
        "Counter('jobs', 'Help.', ['n']).labels('a').inc(5); print('ready', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [*command, sys.executable, "-c", code],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(run.multiproc)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == b"ready\n"
        (file,) = find_foreign(run.clients)
        assert file.process == "4194999"
        assert hold_if_dead(file) is None
        assert page(run)[A] == 5.0
        child.kill()
    held = wait_until(lambda: hold_if_dead(file))
    held.close()
    assert fold_dead(run).taken == 1
    assert page(run)[A] == 5.0


def test_a_mapping_alone_keeps_it_living(run: RunDirectory) -> None:
    file = StockFile(run.multiproc, "counter", 100, {A: 1.0})
    file._file._f.close()
    assert fold_dead(run).taken == 0
    file._file._m.close()
    assert fold_dead(run).taken == 1


@pytest.mark.parametrize(
    ("kind", "values", "right"),
    [
        ("gauge_min", [3.0, 1.0, 2.0], 1.0),
        ("gauge_max", [1.0, 3.0, 2.0], 3.0),
        ("gauge_sum", [1.0, 3.0, -2.0], 2.0),
        ("gauge_mostrecent", [9.0, 5.0, 7.0], 7.0),
        ("summary", [1.0, 3.0, 2.0], 6.0),
        ("histogram", [1.0, 3.0, 2.0], 6.0),
    ],
)
def test_each_kind_folds_by_its_rule(run: RunDirectory, kind: str, values: list[float], right: float) -> None:
    name = key("work", "_sum" if kind in ("summary", "histogram") else "")
    for number, value in enumerate(values):
        stamp = {0: 5.0, 1: 1.0, 2: 8.0}[number] if kind == "gauge_mostrecent" else 0.0
        ended(run.multiproc, kind, 100 + number, {name: value}, stamp)
    assert page(run, kind) == {name: right}
    before = stock(run.multiproc)
    assert fold_dead(run).taken == 3
    assert page(run, kind) == {name: right}
    assert stock(run.multiproc) == before
    assert list(before.values()) == [right]


@pytest.mark.parametrize("mode", ["all", "liveall", "livesum", "livemin", "livemax", "livemostrecent"])
def test_gauges_of_the_dead_are_dropped(run: RunDirectory, mode: str) -> None:
    kind = f"gauge_{mode}"
    living = StockFile(run.multiproc, kind, 100, {key("work", ""): 3.0})
    ended(run.multiproc, kind, 101, {key("work", ""): 4.0})
    assert fold_dead(run).dropped == 1
    assert files_in(run.multiproc) == [f"{kind}_100.db"]
    assert page(run, kind) == {key("work", ""): 3.0}
    living.end()


def test_a_total_never_sinks_by_a_rounding_error(run: RunDirectory) -> None:
    """Whatever the order in which parts move from the living to the folded ones."""
    random.seed(7)
    reader = ForeignReader(run)
    name = key("work", "_sum")
    living = [StockFile(run.multiproc, "histogram", 100 + n, {name: random.random() / 3}) for n in range(12)]
    shown = page(run, "histogram", reader)[name]
    while living:
        living.pop(random.randrange(len(living))).end()
        assert fold_dead(run, reader).taken == 1
        now = page(run, "histogram", reader)[name]
        assert now == shown


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
def test_killed_between_any_two_calls(run: RunDirectory) -> None:
    """Nothing is lost and nothing is counted twice, for readers that were there before and for new ones."""
    old = ForeignReader(run)
    right = {A: 0.0}
    number = calls = 0
    while True:
        number += 1
        for process in (100 + 2 * number, 101 + 2 * number):
            ended(run.multiproc, "counter", process, {A: 1.0})
            right[A] += 1
        assert page(run, reader=old) == right
        reached = kill_at_call(number, lambda: fold_dead(run))
        calls += reached
        assert page(run, reader=old) == right, number
        assert page(run) == right, number
        if not reached:
            break
        if number % 4 == 0:
            # else what is left grows faster than it is killed
            assert fold_dead(run).errors == []
    assert calls > 50
    assert fold_dead(run, old).errors == []
    assert set(files_in(run.multiproc)) - {".new-counter_folded.db"} == {"counter_folded.db"}
    assert [name for name in files_in(run.slots) if not name.startswith("fold")] == []
    assert page(run, reader=old) == right
    assert stock(run.multiproc) == {"jobs_total [('n', 'a')]": right[A]}


def test_a_wiped_directory_takes_nothing_away(run: RunDirectory) -> None:
    reader = ForeignReader(run)
    living = StockFile(run.multiproc, "counter", 100, {A: 3.0})
    gauge = StockFile(run.multiproc, "gauge_livesum", 100, {key("work", ""): 3.0})
    ended(run.multiproc, "counter", 101, {A: 4.0})
    assert page(run, reader=reader) == {A: 7.0}
    for name in files_in(run.multiproc):
        (run.multiproc / name).unlink()
    assert page(run, reader=reader) == {A: 7.0}
    assert page(run, "gauge_livesum", reader) == {}
    assert fold_dead(run, reader).vanished == 2
    assert page(run, reader=reader) == {A: 7.0}
    assert page(run) == {A: 7.0}
    assert fold_dead(run, reader).vanished == 0
    assert page(run, reader=reader) == {A: 7.0}
    living.end()
    gauge.end()


def test_what_was_in_a_wiped_directory_outlives_who_read_it(run: RunDirectory) -> None:
    reader = StoreReader(run.path)
    ended(run.multiproc, "counter", 101, {A: 4.0})
    assert totals(run.path, reader) == {"jobs_total{n=a}": 4.0}
    for name in files_in(run.multiproc):
        (run.multiproc / name).unlink()
    assert totals(run.path, reader) == {"jobs_total{n=a}": 4.0}
    # another metrics process
    assert totals(run.path) == {"jobs_total{n=a}": 4.0}
    assert stock(run.multiproc) == {"jobs_total [('n', 'a')]": 4.0}


def test_two_who_read_and_fold_count_nothing_twice(run: RunDirectory) -> None:
    """Two metrics processes, during an upgrade: one learns what the other did, however seldom it looks."""
    one, other = ForeignReader(run), ForeignReader(run)
    wiped = StockFile(run.multiproc, "counter", 99, {A: 10.0})
    right = 10.0
    for number in range(30):
        ended(run.multiproc, "counter", 100 + number, {A: 1.0})
        right += 1
        assert page(run, reader=one) == {A: right}
        if number % 7 == 0:
            assert page(run, reader=other) == {A: right}
        if number == 7:
            wiped.path.unlink()
        if number % 10 == 9:
            fold_dead(run, other)
        else:
            fold_dead(run, one if number % 3 else None)
    assert fold_dead(run, one).errors == []
    assert page(run, reader=one) == page(run, reader=other) == page(run) == {A: right}
    wiped.end()


def test_a_reader_that_slept_too_long_counts_nothing_twice(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promgun.store.folded_file.MOST_ORIGINS", 2)
    reader = ForeignReader(run)
    ended(run.multiproc, "counter", 99, {A: 1.0})
    assert page(run, reader=reader) == {A: 1.0}
    for number in range(10):
        ended(run.multiproc, "counter", 100 + number, {A: 1.0})
        assert fold_dead(run).taken == (2 if number == 0 else 1)
    assert page(run, reader=reader) == {A: 11.0}


def test_a_folded_file_that_is_gone_or_damaged_is_written_again(run: RunDirectory) -> None:
    reader = ForeignReader(run)
    ended(run.multiproc, "counter", 100, {A: 3.0})
    fold_dead(run, reader)
    assert page(run, reader=reader) == {A: 3.0}
    path = run.slots / "folded.counter"
    for harm in (path.unlink, lambda: path.write_bytes(b""), lambda: os.truncate(path, 30)):
        harm()
        assert page(run, reader=reader) == {A: 3.0}
        assert fold_dead(run, reader).restored == ["counter"]
        assert page(run) == {A: 3.0}
    content = path.read_bytes()
    for position in range(0, len(content), 3):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        ForeignReader(run).read()


def test_one_at_a_time(run: RunDirectory) -> None:
    ended(run.multiproc, "counter", 100, {A: 3.0})
    fd = os.open(run.slots, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert fold_dead(run).busy
    os.close(fd)
    assert fold_dead(run).taken == 1


def test_who_opens_a_file_that_is_being_taken_in_goes_on_in_it(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process has the pid of the dead one: its file is no longer taken in, or is taken out again."""
    path = ended(run.multiproc, "counter", 100, {A: 3.0})
    ended(run.multiproc, "counter", 101, {A: 4.0})
    monkeypatch.setattr(DeadFile, "is_wanted", property(lambda dead: dead.file.path == path))
    assert fold_dead(run).taken == 1
    assert files_in(run.multiproc) == ["counter_100.db", "counter_folded.db"]
    assert page(run) == {A: 7.0}
    file = StockFile(run.multiproc, "counter", 100, {A: 5.0})
    assert page(run) == {A: 9.0}
    file.end()


def test_a_waiting_writer_is_seen_and_is_not_harmed(run: RunDirectory) -> None:
    path = ended(run.multiproc, "counter", 100, {A: 3.0})
    (file,) = find_foreign(run.clients)
    held = hold_if_dead(file)
    assert held is not None
    wanted = [held.is_wanted]
    with pytest.raises(BlockingIOError):
        os.open(path, os.O_RDWR | os.O_NONBLOCK)
    wanted.append(held.is_wanted)
    assert wanted == [False, True]
    held.close()
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def test_where_there_are_no_leases_the_pid_decides(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promgun.store.foreign_files._lease", lambda _: None)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ended(run.multiproc, "counter", gone.pid, {A: 3.0})
    ended(run.multiproc, "counter", os.getpid(), {A: 1.0})
    ended(run.multiproc, "counter", "worker-7", {A: 1.0})
    assert fold_dead(run).taken == 1
    assert files_in(run.multiproc) == sorted([f"counter_{os.getpid()}.db", "counter_worker-7.db", "counter_folded.db"])
    assert page(run) == {A: 5.0}


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_what_an_earlier_run_left_is_removed_once(place: Path) -> None:
    with private_run(place, second=True) as run:
        second = run.second_client
        assert second is not None
        old = ended(second, "counter", 100, {A: 3.0})
        used = StockFile(second, "counter", 101, {A: 4.0})
        os.utime(old, (1, 1))
        os.utime(used.path, (1, 1))
        ended(run.multiproc, "counter", 102, {A: 5.0})
        assert fold_dead(run).left_overs == 1
        assert page(run) == {A: 9.0}
        used.end()
        os.utime(used.path, (1, 1))
        done = fold_dead(run)
        assert (done.left_overs, done.taken) == (0, 1)
        assert page(run) == {A: 9.0}


def test_what_else_lies_there_is_no_value_file(run: RunDirectory) -> None:
    folder = run.multiproc
    os.mkfifo(folder / "counter_1.db")
    (folder / "counter_2.db").mkdir()
    (folder / "counter_3.db").symlink_to("/etc/passwd")
    (folder / "counter_4.db").write_bytes(b"")
    (folder / "counter_5.db").write_bytes(bytes(range(256)) * 20)
    (folder / "counter_6.db").write_bytes(bytes(65536))
    (folder / "counter_slot7.db").write_bytes(b"ours")
    (folder / "notes.txt").write_text("not ours")
    with (folder / "counter_8.db").open("wb") as huge:
        huge.truncate(1 << 40)
    ended(folder, "counter", 9, {A: float("nan"), B: -1.0, key(n="c"): float("inf"), key(n="d"): 2.0})
    reader = ForeignReader(run)
    assert page(run, reader=reader) == {key(n="d"): 2.0}
    done = fold_dead(run, reader)
    assert done.errors == []
    assert page(run, reader=reader) == {key(n="d"): 2.0}
    left = {"counter_1.db", "counter_2.db", "counter_3.db", "counter_slot7.db", "notes.txt", "counter_folded.db"}
    assert set(files_in(folder)) == left


def test_a_damaged_living_file_goes_on_with_its_last_values(run: RunDirectory) -> None:
    reader = ForeignReader(run)
    living = StockFile(run.multiproc, "counter", 100, {A: 3.0})
    assert page(run, reader=reader) == {A: 3.0}
    with living.path.open("r+b") as raw:
        raw.write(b"\xff" * 8)
    assert page(run, reader=reader) == {A: 3.0}
    assert reader.read().corrupt == 1
    living._file._m[0:8] = (8 + len(living._file._m[8:0])).to_bytes(8, "little")
    living.end()


def test_files_are_bounded(run: RunDirectory) -> None:
    content = ended(run.multiproc, "counter", 0, {A: 1.0}).read_bytes()[:200]
    for number in range(1, MOST_FILES + 20):
        (run.multiproc / f"counter_{number}.db").write_bytes(content)
    reading = ForeignReader(run).read()
    assert (reading.files, reading.left_off) == (MOST_FILES, 20)
    taken = 0
    for _ in range(200):
        done = fold_dead(run)
        taken += done.taken
        if not done.more:
            break
    assert taken == MOST_FILES + 20
    assert page(run) == {A: MOST_FILES + 20.0}
    assert (run.slots / "folded.counter").stat().st_size < 150_000


def test_names_are_bounded() -> None:
    folded = Folded()
    for number in range(MOST_ORIGINS + 200):
        folded = taken_in("counter", folded, {Origin(f"counter_{number}.db", 1, number, 1): {A: (1.0, 0.0)}})
    assert len(folded.origins) == MOST_ORIGINS
    assert folded.since == 201
    assert folded.entries[A] == (MOST_ORIGINS + 200.0, 0.0)
    assert parse_folded("counter", encode_folded(folded)[0]) == folded


def test_a_full_file_system_loses_nothing(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(run.multiproc, "counter", 100, {A: 3.0})
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if os.fstat(fd).st_size > 0:
            raise OSError(28, "No space left on device")
        return real(fd, data[:5])

    monkeypatch.setattr(os, "write", full)
    done = fold_dead(run)
    assert done.errors == ["folded.counter: No space left on device"]
    assert page(run) == {A: 3.0}
    assert files_in(run.slots) == ["folding-begun"]
    monkeypatch.undo()
    assert fold_dead(run).taken == 1


@pytest.mark.needs_root("be two users")
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_root_opens_nothing_of_the_workers(place: Path) -> None:

    with private_run(place) as run:
        ended(run.multiproc, "counter", 100, {A: 3.0})
        run.owner = Owner(65534, 65534)
        assert fold_dead(run).taken == 0
        assert ForeignReader(run).read().contents == ()


@pytest.mark.needs_root("become somebody else")
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_the_workers_user_does_it_all(place: Path) -> None:

    with private_run(place) as run:
        run.path.parent.chmod(0o711)
        run.give_to(Owner(65534, 65534))

        def work() -> None:
            assert fold_dead(run).errors == []
            living = StockFile(run.multiproc, "counter", 99, {A: 1.0})
            ended(run.multiproc, "counter", 100, {A: 3.0})
            done = fold_dead(run)
            assert (done.taken, done.errors) == (1, [])
            assert page(run) == {A: 4.0}
            assert files_in(run.multiproc) == ["counter_99.db", "counter_folded.db"]
            living.end()

        as_user(65534, work)
