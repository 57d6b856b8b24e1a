"""Sums over many files: in the order of the files, of what somebody asks for, whatever changed between readings."""

from __future__ import annotations

import random
from array import array
from functools import reduce
from operator import add

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promgun.store.row_file import RowFile
from promgun.store.row_format import CellGroup, RowSchema
from promgun.store.row_reader import RowContent, RowReader
from promgun.store.row_total import RowTotal

START, SIZE = 4096, 1 << 16
SCHEMA = RowSchema(
    ("route",),
    (
        CellGroup("requests", ("route",), first_includes="sizes"),
        CellGroup("seconds", ("route",), (0.1, 1.0)),
        CellGroup("sizes", ("route",), (256.0,)),
    ),
)
#: The cells of :data:`SCHEMA` that are no buckets.
FRACTIONS = (0, 4, 7)


def in_order(parts: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(reduce(add, column) for column in zip(*parts, strict=True))


@pytest.mark.parametrize("files", [1, 2, 11, 12, 13, 130])
def test_cells_are_added_in_the_order_of_the_files(files: int) -> None:
    """As floats are: what is added in another order, or is corrected for rounding errors, may sink."""
    random_ = random.Random(files)
    parts = {
        order: tuple(
            random_.random() * 10 ** random_.randrange(6) if cell in FRACTIONS else float(random_.randrange(9))
            for cell in range(SCHEMA.cells)
        )
        for order in random_.sample(range(1000), files)
    }
    total = RowTotal(SCHEMA, ("/",), 0, parts={order: array("d", part).tobytes() for order, part in parts.items()})
    ordered = [parts[order] for order in sorted(parts)]
    assert total.numbers == SCHEMA.shown(in_order(ordered))
    assert total.cells_by_file() == list(zip(sorted(parts), ordered, strict=True))


def test_numbers_are_the_same_object_until_a_part_changes() -> None:
    total = RowTotal(SCHEMA, ("/",), 0)
    assert total.is_empty
    total.set_part(2, bytes(8 * SCHEMA.cells))
    before = total.numbers
    assert total.numbers is before
    total.set_part(1, array("d", [1.0] * SCHEMA.cells).tobytes())
    assert total.numbers != before
    total.drop_part(1)
    assert total.numbers == before
    assert not total.is_empty


class Slot:
    """A file of rows that is written to."""

    def __init__(self) -> None:
        self._memory = bytearray(SIZE)
        self._file = RowFile(memoryview(self._memory), START, lambda _offset, _size: None, reserved=SIZE)

    def count(self, route: int, cell: int) -> None:
        cells, index = self._file.table(SCHEMA).place((f"/{route}",))
        cells[index + cell] += 1.0

    def content(self, order: int) -> RowContent:
        return RowContent(order, "one", START, bytes(self._memory))


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 14),
    st.lists(
        st.lists(st.tuples(st.integers(0, 13), st.integers(0, 40), st.integers(0, SCHEMA.cells - 1)), max_size=25),
        min_size=1,
        max_size=6,
    ),
)
def test_a_reader_that_knows_earlier_contents_reads_what_a_new_one_does(
    files: int, steps: list[list[tuple[int, int, int]]]
) -> None:
    """Whatever rows are made and counted in between two readings; blocks of rows are read only if they changed."""
    slots = [Slot() for _ in range(files)]
    lasting = RowReader("requests")
    for step in steps:
        for slot, route, cell in step:
            slots[slot % files].count(route, cell)
        contents = [slot.content(order) for order, slot in enumerate(slots)]
        new = RowReader("requests")
        found = {total.values: total.numbers for total in lasting.read(contents)}
        assert found == {total.values: total.numbers for total in new.read(contents)}
        assert lasting.sums_by_file() == new.sums_by_file()
        assert sum(numbers[0] for numbers in found.values()) == sum(new.sums_by_file().values())
