"""Where the data of a slot's file ends."""

from __future__ import annotations

import os

import pytest

from promgun.store.slot_file import FILE_SIZE, data_end
from tests.support.store_fixtures import public_folder

_PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("written", "end"),
    [
        ([0, 1, 2], 3),
        ([0, 1, 2, 9], 10),
        ([0, 9], 10),
        ([0], 1),
        ([], 1),
    ],
)
def test_it_ends_at_the_last_hole_also_if_the_allocated_bytes_are_known(written: list[int], end: int) -> None:
    with public_folder() as folder:
        fd = os.open(folder / "slot", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for page in written:
                os.pwrite(fd, b"x" * _PAGE, page * _PAGE)
            for size in (os.fstat(fd).st_size, FILE_SIZE):
                os.ftruncate(fd, size)
                allocated = os.fstat(fd).st_blocks * 512
                assert data_end(fd, _PAGE) == data_end(fd, _PAGE, allocated) == end * _PAGE
        finally:
            os.close(fd)
