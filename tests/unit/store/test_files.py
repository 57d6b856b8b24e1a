"""A value file in the hands of its owner: made whole, grown, and healed whatever happened to it."""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promgun.store import files
from promgun.store import format as fmt
from promgun.store.files import INITIAL_SIZE, MAX_SIZE, ValueFile
from promgun.store.new_file import Owner, reserve, reserve_range
from tests.support.store_fixtures import (
    OBSTACLES,
    damaged_contents,
    descriptors,
    flips,
    key_of,
    read_values,
    stock_samples,
    write_file,
)

THREE = {key_of(n): n + 1.5 for n in range(3)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "counter_slot0.db"


def value_of(file: ValueFile, key: str) -> float:
    return file.cells[file.positions[key] // 8]


def bytes_in_use(path: Path) -> bytes:
    data = path.read_bytes()
    return data[: fmt.read_used(data)]


def test_new_file_is_whole_and_really_there(path: Path) -> None:
    file = ValueFile(path, Owner())
    status = path.stat()
    assert status.st_size == INITIAL_SIZE
    assert status.st_blocks * 512 >= INITIAL_SIZE
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert fmt.read_used(path.read_bytes()) == fmt.HEADER_SIZE
    assert os.listdir(path.parent) == [path.name]
    assert not file.damage
    file.close()


def test_values_outlive_their_owner(path: Path) -> None:
    write_file(path, THREE)
    again = ValueFile(path, Owner())
    assert {key: value_of(again, key) for key in again.positions} == THREE
    assert again.indexes(list(THREE)) == [position // 8 for position in again.positions.values()]
    assert not again.damage
    again.close()


def test_cells_handed_out_stay_valid_when_the_file_grows(path: Path) -> None:
    file = ValueFile(path, Owner())
    (first,) = file.indexes([key_of(0)])
    before = file.cells
    count = 3000
    indexes = file.indexes([key_of(n) for n in range(count)])
    assert path.stat().st_size > INITIAL_SIZE
    assert path.stat().st_blocks * 512 >= path.stat().st_size
    assert len(set(indexes)) == count
    before[first] += 5.0
    assert file.cells[first] == 5.0
    for index in indexes:
        file.cells[index] += index
    file.close()
    assert read_values(path) == {
        key_of(n): index + 5.0 * (n == 0) for n, index in zip(range(count), indexes, strict=True)
    }


def test_prometheus_client_reads_the_file_at_any_size(path: Path) -> None:
    expected = {}
    for count in (0, 1, 50, 500):
        write_file(path, {key_of(n): float(n) for n in range(count)})
        expected = {f"c_total{{n={n}}}": float(n) for n in range(count)}
        assert stock_samples(path.parent) == dict(sorted(expected.items()))


def test_a_new_file_under_an_old_name_has_another_edition(path: Path) -> None:
    editions = set()
    for _ in range(3):
        ValueFile(path, Owner()).close()
        editions.add(fmt.read_edition(path.read_bytes()))
        path.unlink()
    assert len(editions) == 3


def test_a_file_that_was_read_keeps_its_edition_while_it_grows(path: Path) -> None:
    file = ValueFile(path, Owner())
    edition = fmt.read_edition(path.read_bytes())
    file.indexes([key_of(n) for n in range(1000)])
    file.close()
    assert fmt.read_edition(path.read_bytes()) == edition


# ---- no space


def refuse(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_space_nothing_is_left_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    open_before = descriptors()
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            ValueFile(path, Owner())
    assert os.listdir(path.parent) == []
    assert descriptors() == open_before


def test_a_file_that_cannot_grow_goes_on_as_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ValueFile(path, Owner())
    (first,) = file.indexes([key_of(0)])
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(OSError, match="No space"):
            file.indexes([key_of(n) for n in range(1000)])
        file.cells[first] += 2.0
        stored = len(file.positions)
        assert 1 < stored < 1000
        assert path.stat().st_size == INITIAL_SIZE
    indexes = file.indexes([key_of(n) for n in range(1000)])
    for index in indexes:
        file.cells[index] += 1.0
    file.close()
    assert read_values(path) == {key_of(n): 1.0 + 2.0 * (n == 0) for n in range(1000)}


def test_space_is_reserved_also_where_files_were_sparse(path: Path) -> None:
    path.write_bytes(fmt.encode_header(fmt.HEADER_SIZE))
    os.truncate(path, 1 << 16)
    assert path.stat().st_blocks * 512 < 1 << 16
    ValueFile(path, Owner()).close()
    status = path.stat()
    assert status.st_blocks * 512 >= status.st_size == INITIAL_SIZE


def test_a_file_costs_what_a_stock_one_costs_in_descriptors_however_large_it_grows(path: Path) -> None:
    before = descriptors()
    file = ValueFile(path, Owner())
    places = []
    for number in range(20_000):
        (index,) = file.indexes([key_of(number)])
        places.append((file.cells, index))
    assert path.stat().st_size > 1 << 20
    assert descriptors() - before <= 2
    for cells, index in places:
        cells[index] += 1
    assert set(read_values(path).values()) == {1.0}
    file.close()


@pytest.mark.parametrize("limit", [1 << 15, (1 << 15) + 5])
def test_a_limit_on_the_size_of_files_is_the_largest_size(path: Path, limit: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        file = ValueFile(path, Owner())
        with pytest.raises(OSError, match="too large"):
            file.indexes([key_of(number) for number in range(1000)])
        file.cells[file.indexes([key_of(0)])[0]] += 1
        file.close()
        assert path.stat().st_size == 1 << 15
        assert ValueFile(path, Owner()).damage == ""
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_zeros_are_written_where_a_file_system_cannot_reserve(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    with path.open("wb") as written:
        reserve(written.fileno(), 200_000)
    assert path.read_bytes() == bytes(200_000)
    assert path.stat().st_blocks * 512 >= 200_000


@pytest.mark.parametrize("number", [None, errno.EOPNOTSUPP])
def test_a_range_is_reserved_and_keeps_what_it_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(number, "Operation not supported")

    if number is not None:
        monkeypatch.setattr(os, "posix_fallocate", unsupported)
    path.write_bytes(b"before")
    os.truncate(path, 1 << 20)
    with path.open("r+b") as file:
        reserve_range(file.fileno(), 0, 4096)
        reserve_range(file.fileno(), 1 << 16, 8192)
    assert path.read_bytes() == b"before".ljust(1 << 20, b"\0")
    assert 8192 + 4096 <= path.stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_range_for_which_there_is_no_space_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with path.open("w+b") as file, pytest.raises(OSError, match=os.strerror(number)):
        reserve_range(file.fileno(), 0, 4096)


def test_a_file_has_a_largest_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_SIZE", INITIAL_SIZE)
    file = ValueFile(path, Owner())
    with pytest.raises(OSError, match="too large") as raised:
        file.indexes([key_of(n) for n in range(1000)])
    assert raised.value.errno == errno.EFBIG
    file.close()
    assert path.stat().st_size == INITIAL_SIZE


def test_a_key_that_no_reader_would_take_is_refused(path: Path) -> None:
    file = ValueFile(path, Owner())
    with pytest.raises(OSError, match="too long") as raised:
        file.indexes([key_of("x" * fmt.MAX_KEY)])
    assert raised.value.errno == errno.EMSGSIZE
    file.indexes([key_of(1)])
    file.close()
    assert read_values(path) == {key_of(1): 0.0}


# ---- interrupted


def test_a_handler_that_raises_while_an_entry_is_added_spoils_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ValueFile(path, Owner())
    real = os.pwrite

    def interrupted(*arguments: Any) -> int:
        real(*arguments)
        raise InterruptedError

    keys = [key_of(n) for n in range(5)]
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", interrupted)
        with pytest.raises(InterruptedError):
            file.indexes(keys)
    for round_ in range(2):
        for index in file.indexes(keys):
            file.cells[index] += 1.0
        assert read_values(path) == dict.fromkeys(keys, round_ + 1.0)
    file.close()


def test_an_entry_is_whole_before_it_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ValueFile(path, Owner())
    real = os.pwrite
    seen = []

    def watched(fd: int, data: bytes, offset: int) -> int:
        before = fmt.read_used(path.read_bytes())
        written = real(fd, data, offset)
        # Every write is behind what counts, and what counts stays as it was until after it.
        assert offset == before == fmt.read_used(path.read_bytes())
        seen.append(offset)
        return written

    monkeypatch.setattr(os, "pwrite", watched)
    for number in range(300):
        file.indexes([key_of(number)])
        assert fmt.read_used(path.read_bytes()) > seen[-1]
    assert len(set(seen)) == 300
    file.close()


def test_a_kill_at_any_byte_of_an_append_costs_nothing(path: Path) -> None:
    write_file(path, THREE)
    before = path.read_bytes()
    write_file(path, {key_of("new"): 0.0})
    after = path.read_bytes()
    begin, end = fmt.read_used(before), fmt.read_used(after)
    assert after[begin:end] != bytes(end - begin)
    # The entry is written first; its header is one store of 8 bytes, which is there or not.
    states = [before[:begin] + after[begin:cut] + before[cut:] for cut in range(begin, end + 1)]
    for state in [*states, after]:
        path.write_bytes(state)
        file = ValueFile(path, Owner())
        assert not file.damage
        assert {key: value_of(file, key) for key in THREE} == THREE
        for index in file.indexes([key_of("new"), key_of("other")]):
            file.cells[index] += 7.0
        file.close()
        assert read_values(path) == THREE | {key_of("new"): 7.0, key_of("other"): 7.0}
        assert stock_samples(path.parent)["c_total{n=new}"] == 7.0
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("written", range(1, 8))
def test_half_a_header_is_healed(path: Path, written: int) -> None:
    many = {key_of(f"{n:03}"): float(n) for n in range(100)}
    write_file(path, many)
    before = path.read_bytes()
    write_file(path, {key_of("x" * 200): 0.0})
    after = path.read_bytes()
    path.write_bytes(after[:written] + before[written:8] + after[8:])
    file = ValueFile(path, Owner())
    assert {key: value_of(file, key) for key in many} == many
    file.close()
    assert many.items() <= read_values(path).items()
    assert len(stock_samples(path.parent)) == len(read_values(path))


# ---- damaged


@pytest.mark.unmeasured("the processor alone bounds it, and measuring makes it several times as slow")
def test_every_wrong_bit_costs_at_most_what_it_is_in(path: Path) -> None:
    write_file(path, THREE)
    good = bytes_in_use(path)
    cells = {at + i: key for key, at in fmt.scan(good, len(good)).entries for i in range(8)}
    begins = sorted(at + 16 for _, at in fmt.scan(good, len(good)).entries)
    for position, content in flips(good):
        path.write_bytes(content)
        file = ValueFile(path, Owner())
        file.close()
        kept = read_values(path)
        touched = cells.get(position)
        if position < fmt.HEADER_SIZE:
            assert kept == THREE
        elif touched is not None:
            assert set(kept) == set(THREE)
            assert {key: value for key, value in kept.items() if key != touched} == {
                key: value for key, value in THREE.items() if key != touched
            }
        else:
            # One bit makes another's key of a key: no format without a checksum can tell.
            entry = sum(position >= end for end in begins)
            others = {key for n, key in enumerate(THREE) if n != entry}
            changed = {key for key in others if list(kept).count(key) != 1 or kept[key] != THREE[key]}
            assert changed <= {key_of(chr(ord(str(entry)) ^ 1)), key_of(chr(ord(str(entry)) ^ 2))}
        # prometheus_client raises for a file that is still damaged
        assert len(stock_samples(path.parent)) == len(kept)


def test_every_cut_keeps_the_entries_before_it(path: Path) -> None:
    write_file(path, THREE)
    good = bytes_in_use(path)
    ends = [at + 16 for _, at in fmt.scan(good, len(good)).entries]
    for size in range(len(good)):
        path.write_bytes(good[:size])
        file = ValueFile(path, Owner())
        (index,) = file.indexes([key_of(2)])
        file.cells[index] += 1.0
        file.close()
        whole = dict(list(THREE.items())[: sum(end <= size for end in ends)])
        assert read_values(path) == whole | {key_of(2): 1.0}
        assert file.damage
    assert {".bad-counter_slot0.db", "counter_slot0.db"} == set(os.listdir(path.parent))


@pytest.mark.parametrize("kind", damaged_contents(b"x" * 64))
def test_a_file_with_nothing_good_is_set_aside(path: Path, kind: str) -> None:
    write_file(path, THREE)
    content = damaged_contents(bytes_in_use(path))[kind]
    path.write_bytes(content)
    file = ValueFile(path, Owner())
    file.indexes([key_of(9)])
    file.close()
    assert file.damage
    if kind == "negative end":
        assert read_values(path) == THREE | {key_of(9): 0.0}
        return
    assert read_values(path) == {key_of(9): 0.0}
    assert path.with_name(f".bad-{path.name}").read_bytes() == content


def test_an_oversize_file_is_set_aside(path: Path) -> None:
    path.write_bytes(fmt.encode_header(fmt.HEADER_SIZE))
    os.truncate(path, MAX_SIZE + 1)
    file = ValueFile(path, Owner())
    file.close()
    assert file.damage == "oversize"
    assert path.stat().st_size == INITIAL_SIZE


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_file_is_set_aside(path: Path, kind: str) -> None:
    open_before = descriptors()
    for _ in range(2):
        OBSTACLES[kind](path)
        write_file(path, THREE)
        assert read_values(path) == THREE
        assert stat.S_ISREG(path.lstat().st_mode)
        path.unlink()
    precious = path.with_name("precious.txt")
    assert not precious.exists() or precious.read_text() == "precious"
    assert not path.with_name("nowhere").exists()
    assert descriptors() == open_before


def test_what_was_set_aside_before_is_replaced(path: Path) -> None:
    bad = path.with_name(f".bad-{path.name}")
    for content in (b"first", b"second"):
        path.write_bytes(content)
        ValueFile(path, Owner()).close()
        assert bad.read_bytes() == content
    bad.unlink()
    bad.mkdir()
    path.write_bytes(b"third")
    ValueFile(path, Owner()).close()
    assert bad.read_bytes() == b"third"


def test_a_left_over_of_a_killed_creation_is_replaced(path: Path) -> None:
    path.with_name(f".new-{path.name}").write_bytes(b"half")
    write_file(path, THREE)
    assert os.listdir(path.parent) == [path.name]


def test_a_healed_file_is_another_edition(path: Path) -> None:
    write_file(path, THREE)
    edition = fmt.read_edition(path.read_bytes())
    path.write_bytes(bytes_in_use(path)[:-1])
    ValueFile(path, Owner()).close()
    assert fmt.read_edition(path.read_bytes()) != edition


def test_a_damaged_file_stays_while_there_is_no_space_to_heal_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(path, THREE)
    damaged = bytes_in_use(path)[:-1]
    path.write_bytes(damaged)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(OSError, match="No space"):
            ValueFile(path, Owner())
    assert path.read_bytes() == damaged
    ValueFile(path, Owner()).close()
    assert read_values(path) == dict(list(THREE.items())[:2])


@pytest.mark.unmeasured("the processor alone bounds it, and measuring makes it several times as slow")
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.tuples(st.integers(0, 260), st.binary(min_size=1, max_size=24)), min_size=1, max_size=4))
def test_scribbles_never_raise_and_heal(path: Path, scribbles: list[tuple[int, bytes]]) -> None:
    path.unlink(missing_ok=True)
    write_file(path, THREE)
    content = bytearray(bytes_in_use(path))
    for position, noise in scribbles:
        content[position : position + len(noise)] = noise
    path.write_bytes(content)
    file = ValueFile(path, Owner())
    for index in file.indexes([key_of("new")]):
        file.cells[index] += 1.0
    file.close()
    assert read_values(path)[key_of("new")] == 1.0
    assert not ValueFile(path, Owner()).damage


@pytest.mark.needs_root("give files to another user")
def test_files_belong_to_the_workers_user(path: Path) -> None:
    file = ValueFile(path, Owner(65534, 65534))
    file.close()
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)
    path.write_bytes(bytes_in_use(path)[:-1] + b"junk")
    write_file(path, {})
