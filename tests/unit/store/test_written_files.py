"""A value file in a process that maps nothing: what it writes out is what was counted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.store import format as fmt
from promgun.store.files import INITIAL_SIZE, WRITTEN_SIZE, WrittenValueFile
from promgun.store.new_file import Owner
from tests.support.store_fixtures import (
    key_of,
    read_values,
)
from tests.unit.store.test_files import THREE, bytes_in_use, value_of


@pytest.fixture
def written(tmp_path: Path) -> Iterator[WrittenValueFile]:
    file = WrittenValueFile(tmp_path / "m0.counter", Owner(), mode=0o640)
    yield file
    file.close()


def mapped(path: Path) -> list[str]:
    """Return the mappings of this process that are of a file."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]


def test_what_is_written_out_is_what_was_counted(written: WrittenValueFile) -> None:
    indexes = written.indexes(list(THREE))
    for index, number in zip(indexes, THREE.values(), strict=True):
        written.cells[index] += number
    assert read_values(written.path) == {}
    written.flush()
    assert read_values(written.path) == THREE
    written.cells[indexes[0]] += 1.0
    written.flush()
    assert read_values(written.path)[key_of(0)] == THREE[key_of(0)] + 1.0
    assert mapped(written.path) == []
    assert stat.S_IMODE(written.path.stat().st_mode) == 0o640


def test_written_values_outlive_their_owner(written: WrittenValueFile) -> None:
    for index in written.indexes(list(THREE)):
        written.cells[index] = 5.0
    written.flush()
    heir = WrittenValueFile(written.path, Owner(), mode=0o640)
    assert {key: value_of(heir, key) for key in heir.positions} == dict.fromkeys(THREE, 5.0)
    edition = fmt.read_edition(written.path.read_bytes())
    (index,) = heir.indexes([key_of(7)])
    heir.cells[index] += 2.0
    heir.flush()
    assert read_values(heir.path) == dict.fromkeys(THREE, 5.0) | {key_of(7): 2.0}
    assert fmt.read_edition(written.path.read_bytes()) == edition
    heir.close()


def test_cells_handed_out_stay_valid_when_a_written_file_grows(written: WrittenValueFile) -> None:
    (first,) = written.indexes([key_of(0)])
    before = written.cells
    count = 3000
    indexes = written.indexes([key_of(n) for n in range(count)])
    assert written.path.stat().st_size > INITIAL_SIZE
    before[first] += 5.0
    for index in indexes:
        written.cells[index] += index
    written.flush()
    assert read_values(written.path) == {
        key_of(n): index + 5.0 * (n == 0) for n, index in zip(range(count), indexes, strict=True)
    }


def test_a_written_file_has_a_largest_size(written: WrittenValueFile) -> None:
    most = WRITTEN_SIZE // len(fmt.encode_entry(key_of("x" * 4000)))
    keys = [key_of(f"{n:04}" + "x" * 3996) for n in range(most + 2)]
    with pytest.raises(OSError, match="too large") as raised:
        written.indexes(keys)
    assert raised.value.errno == errno.EFBIG
    written.flush()
    assert len(read_values(written.path)) >= most - 2


def test_what_counts_is_whole_before_it_counts(written: WrittenValueFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads between two writes, or after a kill there, finds entries of before with values of before or of now."""
    real = os.pwrite
    seen: list[set[float]] = []

    def watched(fd: int, data: bytes, offset: int) -> int:
        count = real(fd, data, offset)
        seen.append(set(read_values(written.path).values()))
        return count

    monkeypatch.setattr(os, "pwrite", watched)
    for number in range(1, 4):
        for index in written.indexes([key_of(n) for n in range(number)]):
            written.cells[index] = 7.0
        written.flush()
        assert read_values(written.path) == {key_of(n): 7.0 for n in range(number)}
    assert len(seen) >= 9
    assert set().union(*seen) == {7.0}


def test_a_damaged_written_file_is_healed(written: WrittenValueFile) -> None:
    for index, number in zip(written.indexes(list(THREE)), THREE.values(), strict=True):
        written.cells[index] = number
    written.flush()
    written.path.write_bytes(bytes_in_use(written.path)[:-1])
    healed = WrittenValueFile(written.path, Owner(), mode=0o640)
    assert healed.damage
    assert {key: value_of(healed, key) for key in healed.positions} == dict(list(THREE.items())[:2])
    healed.close()


@pytest.mark.needs_root("give files to another user")
def test_a_written_file_is_its_master_s_and_may_be_read_by_the_workers_group(tmp_path: Path) -> None:
    file = WrittenValueFile(tmp_path / "m0.counter", Owner(None, 65534), mode=0o640)
    status = file.path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 65534, 0o640)
    file.close()
