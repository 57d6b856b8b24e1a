"""Rows: what a writer appends a reader finds, whatever happens in between."""

from __future__ import annotations

import errno
import math
import mmap
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promgun.metrics.fine_durations import FINE_SCHEMA
from promgun.store import row_reader
from promgun.store.row_file import RowFile
from promgun.store.row_format import CellGroup, RowSchema, encode_row, encode_schema, log_bounds, parse_schema
from promgun.store.row_reader import RowContent, RowReader
from promgun.store.row_scan import scan_rows

START = 64
SIZE = 1 << 16
LABELS = ("method", "route", "status")
REQUESTS = RowSchema(
    LABELS,
    (
        CellGroup("gunicorn_requests_total", LABELS),
        CellGroup("gunicorn_request_duration_seconds", LABELS, (0.1, 1.0)),
        CellGroup("gunicorn_request_size_bytes", ("method", "route"), (256.0,), "gunicorn_requests_total"),
    ),
)
LOST = RowSchema(("cause", "route"), (CellGroup("gunicorn_requests_lost_total", ("cause", "route")),))


def row_file(content: bytes | bytearray = b"", size: int = SIZE) -> RowFile:
    """Rows in private memory, all of it reserved."""
    memory = bytearray(size)
    memory[: len(content)] = content
    return RowFile(memoryview(memory), START, lambda _offset, _size: None, reserved=size, clock=lambda: 7)


def content_of(file: RowFile) -> bytes:
    return bytes(file.cells.cast("B"))


def count(file: RowFile, schema: RowSchema, values: tuple[str, ...], amount: float = 1.0) -> None:
    cells, index = file.table(schema).place(values)
    cells[index] += amount


def totals(reader: RowReader, *contents: bytes) -> dict[tuple[str, ...], tuple[float, ...]]:
    read = reader.read(RowContent(order, "one", START, content) for order, content in enumerate(contents))
    return {total.values: total.numbers for total in read}


def test_a_row_has_the_cells_that_its_schema_says() -> None:
    assert REQUESTS.cells == 1 + 4 + 3
    assert REQUESTS.firsts == {
        "gunicorn_requests_total": 0,
        "gunicorn_request_duration_seconds": 1,
        "gunicorn_request_size_bytes": 5,
    }


def test_what_is_appended_is_found_with_its_birth_and_numbers() -> None:
    file = row_file()
    count(file, REQUESTS, ("GET", "/users/{id}", "200"), 3.0)
    count(file, LOST, ("oom", ""), 1.0)
    count(file, REQUESTS, ("GET", "/größe/\N{SNOWMAN}", "404"))
    found = scan_rows(content_of(file), START, SIZE)
    assert [(row.schema, row.values, row.birth) for row in found.rows] == [
        (REQUESTS, ("GET", "/users/{id}", "200"), 7),
        (LOST, ("oom", ""), 7),
        (REQUESTS, ("GET", "/größe/\N{SNOWMAN}", "404"), 7),
    ]
    assert [file.cells[row.numbers // 8] for row in found.rows] == [3.0, 1.0, 1.0]
    assert found.damaged == 0
    assert found.end == file.end


def test_the_next_owner_counts_on_in_the_same_rows() -> None:
    first = row_file()
    count(first, REQUESTS, ("GET", "/", "200"), 3.0)
    second = row_file(content_of(first))
    count(second, REQUESTS, ("GET", "/", "200"))
    count(second, REQUESTS, ("PUT", "/", "200"))
    assert totals(RowReader(), content_of(second))["GET", "/", "200"][0] == 4.0
    assert second.damaged == 0


def test_places_never_move() -> None:
    file = row_file()
    cells, index = file.table(LOST).place(("oom", ""))
    for number in range(200):
        file.table(LOST).place(("oom", str(number)))
    assert file.table(LOST).place(("oom", "")) == (cells, index)


def test_no_room_is_an_error_that_leaves_what_is_there() -> None:
    file = row_file(size=1024)
    with pytest.raises(OSError, match=r"[Ll]arge") as caught:  # noqa: PT012 - the loop ends by what is looked for
        for number in range(1000):
            count(file, LOST, ("oom", str(number)))
    assert caught.value.errno == errno.EFBIG
    found = scan_rows(content_of(file), START, 1024)
    assert found.damaged == 0
    assert len(found.rows) > 10


def test_pages_are_reserved_before_they_are_written_to() -> None:
    reserved: list[tuple[int, int]] = []
    memory = memoryview(bytearray(SIZE))
    file = RowFile(memory, START, lambda offset, size: reserved.append((offset, size)))
    for number in range(500):
        file.table(LOST).place(("oom", str(number)))
        upto = max(offset + size for offset, size in reserved)
        assert file.end <= upto
    assert all(size <= mmap.PAGESIZE for offset, size in reserved if offset < 1 << 16)
    assert all(size <= 4 * mmap.PAGESIZE for _, size in reserved)


def test_a_failed_reservation_leaves_no_trace() -> None:
    def refuse(_offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    file = RowFile(memoryview(bytearray(SIZE)), START, refuse)
    with pytest.raises(OSError, match="full"):
        file.table(LOST)
    assert content_of(file) == bytes(SIZE)
    assert file.end == START


class Cut(Exception):  # noqa: N818 - an event, not an error
    """The writer is killed here."""


class KilledMemory:
    """Memory whose writer is killed before its n-th store."""

    def __init__(self, memory: memoryview, stores: int) -> None:
        self._memory = memory
        self._left = stores

    def __len__(self) -> int:
        return len(self._memory)

    def cast(self, kind: Any) -> object:
        return self if kind == "Q" else self._memory.cast(kind)

    def __getitem__(self, where: slice) -> memoryview:
        return self._memory[where]

    def __setitem__(self, where: slice | int, value: Any) -> None:
        if self._left == 0:
            raise Cut
        self._left -= 1
        target: Any = self._memory if isinstance(where, slice) else self._memory.cast("Q")
        target[where] = value


def test_a_writer_killed_between_any_two_stores_leaves_no_half_row() -> None:
    before = row_file()
    count(before, REQUESTS, ("GET", "/", "200"), 5.0)
    for stores in range(9):
        memory = bytearray(content_of(before))
        killed = KilledMemory(memoryview(memory), stores)
        with pytest.raises(Cut):  # noqa: PT012 - it happens in any of them
            file = RowFile(killed, START, lambda _o, _s: None, reserved=SIZE)  # type: ignore[arg-type] # as memory
            for path in ("/a", "/b", "/c", "/d", "/e"):
                file.table(LOST).place(("killed", path * 20))
        found = scan_rows(bytes(memory), START, SIZE)
        assert found.damaged == 0
        after = row_file(memory)
        count(after, LOST, ("killed", "/z"))
        assert totals(RowReader(), content_of(after))["killed", "/z"] == (1.0,)
        assert totals(RowReader(), content_of(after))["GET", "/", "200"][0] == 5.0
        assert scan_rows(content_of(after), START, SIZE).damaged == 0, "nothing of a longer row is behind a shorter one"


def test_a_row_can_be_given_to_other_values_of_the_same_length() -> None:
    file = row_file()
    count(file, LOST, ("oom", "/a"), 5.0)
    count(file, LOST, ("oom", "/z"), 2.0)
    reader = RowReader()
    totals(reader, content_of(file))
    cells, index = file.table(LOST).reuse(("oom", "/a"), ("oom", "/b"))
    cells[index] = 3.0
    changed = [RowContent(0, "another edition", START, content_of(file))]
    assert {total.values: total.numbers for total in reader.read(changed)} == {
        ("oom", "/b"): (3.0,),
        ("oom", "/z"): (2.0,),
    }
    with pytest.raises(ValueError, match="longer"):
        file.table(LOST).reuse(("oom", "/b"), ("oom", "/longer than that"))
    with pytest.raises(KeyError):
        file.table(LOST).reuse(("oom", "/a"), ("oom", "/c"))
    assert totals(RowReader(), content_of(file)) == {("oom", "/b"): (3.0,), ("oom", "/z"): (2.0,)}


def test_a_writer_killed_while_it_gives_a_row_away_leaves_it_to_the_next() -> None:
    before = row_file()
    for path in ("/a", "/z"):
        count(before, LOST, ("oom", path), 5.0)
    seen = set()
    for stores in range(3):
        memory = bytearray(content_of(before))
        file = RowFile(memoryview(memory), START, lambda _o, _s: None, reserved=SIZE)
        file.memory = file.words = KilledMemory(memoryview(memory), stores)  # type: ignore[assignment] # as memory
        with pytest.raises(Cut):
            file.table(LOST).reuse(("oom", "/a"), ("oom", "/b"))
        seen.add(frozenset(totals(RowReader(), bytes(memory))))
        after = row_file(memory)
        assert after.damaged == 0
        assert len(after.table(LOST).rows) == 2, "nothing of the room is lost"
        old = next(values for values in after.table(LOST).rows if values != ("oom", "/z"))
        after.table(LOST).reuse(old, ("oom", "/c"))
        count(after, LOST, ("oom", "/c"))
        assert totals(RowReader(), content_of(after)) == {("oom", "/c"): (1.0,), ("oom", "/z"): (5.0,)}
    assert seen == {frozenset({("oom", "/a"), ("oom", "/z")}), frozenset({("oom", "/z")})}


def damage_and_scan(content: bytes, damage: Callable[[bytearray], None]) -> None:
    """Damage a copy; the reader and the next writer must go on, and what is found must be what was written."""
    known = {row.values for row in scan_rows(content, START, SIZE).rows}
    damaged = bytearray(content)
    damage(damaged)
    reader = RowReader()
    found = totals(reader, bytes(damaged))
    assert found.keys() <= known
    assert all(0 <= number < float("inf") for numbers in found.values() for number in numbers)
    file = row_file(damaged)
    count(file, LOST, ("killed", "new"))
    assert totals(RowReader(), content_of(file))["killed", "new"] == (1.0,)


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_is_scribbled_into_a_file_costs_only_what_it_hits(data: st.DataObject) -> None:
    file = row_file()
    for number in range(20):
        count(file, REQUESTS, ("GET", f"/{number}", "200"), float(number))
        count(file, LOST, ("oom", str(number)))
    at = data.draw(st.integers(START, file.end - 1))
    scribble = data.draw(st.binary(min_size=1, max_size=64))

    def overwrite(content: bytearray) -> None:
        content[at : at + len(scribble)] = scribble

    damage_and_scan(content_of(file), overwrite)


def test_a_damaged_row_is_stepped_over() -> None:
    file = row_file()
    for number in range(3):
        count(file, LOST, ("oom", str(number)))
    content = bytearray(content_of(file))
    at = content.index(b"oom1")
    content[at] ^= 0xFF
    reader = RowReader()
    assert set(totals(reader, bytes(content))) == {("oom", "0"), ("oom", "2")}
    assert reader.corrupt == 1
    totals(reader, bytes(content))
    assert reader.corrupt == 1


def test_a_number_that_cannot_be_right_reads_0_and_is_counted_once() -> None:
    file = row_file()
    count(file, LOST, ("oom", ""), 2.0)
    count(file, LOST, ("killed", ""), float("nan"))
    count(file, LOST, ("timeout", ""), -5.0)
    reader = RowReader()
    for _ in range(2):
        assert totals(reader, content_of(file)) == {
            ("oom", ""): (2.0,),
            ("killed", ""): (0.0,),
            ("timeout", ""): (0.0,),
        }
    assert reader.corrupt == 2
    # The row changes, and what cannot be right stays.
    cells, index = file.table(LOST).place(("killed", ""))
    cells[index] = -1.0
    assert totals(reader, content_of(file))["killed", ""] == (0.0,)
    assert reader.corrupt == 2


def test_after_a_damaged_schema_a_new_one_takes_no_other_s_number() -> None:
    file = row_file()
    count(file, REQUESTS, ("GET", "/", "200"))
    count(file, LOST, ("oom", ""), 2.0)
    content = bytearray(content_of(file))
    content[START + 20] ^= 1
    after = row_file(content)
    count(after, RowSchema(("x",), (CellGroup("gunicorn_x_total", ("x",)),)), ("y",), 3.0)
    count(after, LOST, ("killed", ""), 5.0)
    assert totals(RowReader(), content_of(after)) == {("oom", ""): (2.0,), ("killed", ""): (5.0,), ("y",): (3.0,)}


def test_files_are_added_up_in_their_order_and_one_that_goes_is_shown_as_it_was() -> None:
    files = [row_file() for _ in range(3)]
    reader = RowReader()
    expected = 0.0
    for file in files:
        amount = random.random()
        expected += amount
        count(file, LOST, ("oom", ""), amount)
    contents = [content_of(file) for file in files]
    assert totals(reader, *contents)["oom", ""] == (expected,)
    count(files[0], LOST, ("oom", "/late"))
    contents[0] = content_of(files[0])
    assert totals(reader, *contents)["oom", "/late"] == (1.0,)
    assert totals(reader, contents[0])["oom", ""] == (expected,), "its owner makes it again"


def test_what_changes_between_two_readings_is_seen() -> None:
    file, reader = row_file(), RowReader()
    for number in range(300):
        count(file, REQUESTS, ("GET", f"/{number}", "200"))
    totals(reader, content_of(file))
    for number in range(0, 300, 7):
        count(file, REQUESTS, ("GET", f"/{number}", "200"))
    found = totals(reader, content_of(file))
    assert found == totals(RowReader(), content_of(file))
    assert sum(numbers[0] for numbers in found.values()) == 300 + len(range(0, 300, 7))


def test_a_copy_that_ends_within_a_row_is_gone_on_with() -> None:
    """A reader asks where the data ends, then copies so much; a row that is appended in between is not all there."""
    file = row_file()
    count(file, LOST, ("oom", "/a"), 5.0)
    end = file.end
    count(file, LOST, ("oom", "/b"), 2.0)
    for cut in range(end, file.end, 8):
        reader = RowReader()
        assert totals(reader, content_of(file)[:cut]) == {("oom", "/a"): (5.0,)}
        assert totals(reader, content_of(file)) == {("oom", "/a"): (5.0,), ("oom", "/b"): (2.0,)}
        assert reader.corrupt == 0


def test_a_row_with_a_wrong_length_is_stepped_over_once_others_follow() -> None:
    file = row_file()
    count(file, LOST, ("oom", "/a"), 5.0)
    start = file.end
    count(file, LOST, ("oom", "/b"), 2.0)
    damaged = bytearray(content_of(file))
    damaged[start + 4 : start + 8] = (1 << 17).to_bytes(4, "little")
    reader = RowReader()
    assert totals(reader, bytes(damaged)) == {("oom", "/a"): (5.0,)}
    count(file, LOST, ("oom", "/c"), 3.0)
    damaged[file.end - 256 :] = content_of(file)[file.end - 256 :]
    damaged[start + 4 : start + 8] = (1 << 17).to_bytes(4, "little")
    assert totals(reader, bytes(damaged)) == {("oom", "/a"): (5.0,), ("oom", "/c"): (3.0,)}
    assert reader.corrupt == 1


def test_the_earliest_birth_counts() -> None:
    early = RowFile(memoryview(bytearray(SIZE)), START, lambda _o, _s: None, clock=lambda: 3)
    late = RowFile(memoryview(bytearray(SIZE)), START, lambda _o, _s: None, clock=lambda: 9)
    for file in (early, late):
        count(file, LOST, ("oom", ""))
    read = RowReader().read(RowContent(order, 1, START, content_of(file)) for order, file in enumerate((late, early)))
    assert [total.birth for total in read] == [3]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[[],[]]",
        b'[["a"],[["b",["c"],[],""]]]',
        b'[["le\\u0000"],[["b",[],[],""]]]',
        b'[[],[["b",[],[2,1],""]]]',
        b'[[],[["b",[],[NaN],""]]]',
        b'[[],[["b",[],["x"],""]]]',
        b'[[],[["b d",[],[],""]]]',
        b'[[],[["b",[],[1' + b"0" * 400 + b'],""]]]',
        b'[[],[["b",[],{},""]]]',
        b'[[],[["b",[],{"log":[1,2]},""]]]',
        b'[[],[["b",[],{"log":["1","2",3]},""]]]',
        b'[[],[["b",[],{"log":[0,2,40]},""]]]',
        b'[[],[["b",[],{"log":[2,1,40]},""]]]',
        b'[[],[["b",[],{"log":[1,2,0]},""]]]',
        b'[[],[["b",[],{"log":[1,2,40.5]},""]]]',
        b'[[],[["b",[],{"log":[1,2,1000000000]},""]]]',
        b'[[],[["b",[],{"log":[1,1.0001,400]},""]]]',
        b'[[],[["b",[],{"log":[1,1' + b"0" * 400 + b',40]},""]]]',
        b'[[],[["b",[],{"log":[1,Infinity,40]},""]]]',
        b"[" * 5000,
    ],
)
def test_a_schema_that_cannot_be_is_none(body: bytes) -> None:
    assert parse_schema(body) is None


def test_a_schema_is_read_as_it_was_written() -> None:
    record = encode_schema(REQUESTS, 4)
    found = scan_rows(record + encode_row(REQUESTS.cells, 4, ("GET", "/", "200"), 1), 0, 1 << 20)
    assert found.schemas == {4: REQUESTS}
    assert [row.values for row in found.rows] == [("GET", "/", "200")]


def test_the_bounds_of_the_fine_histogram_take_a_few_bytes() -> None:
    record = encode_schema(FINE_SCHEMA, 4)
    assert len(record) < 100
    assert scan_rows(record, 0, len(record)).schemas == {4: FINE_SCHEMA}


@pytest.mark.parametrize(
    "bounds",
    [
        tuple(float(number) for number in range(1, 60)),
        (*log_bounds(0.001, 1000.0, 50)[:-1], 1000.5),
        (*log_bounds(0.001, 1000.0, 50)[:20], 0.26, *log_bounds(0.001, 1000.0, 50)[21:]),
        (-1.0, *log_bounds(0.001, 1000.0, 50)),
        log_bounds(0.1, 10.0, 8),
    ],
)
def test_other_bounds_are_read_as_they_were_written(bounds: tuple[float, ...]) -> None:
    schema = RowSchema((), (CellGroup("seconds", (), bounds),))
    record = encode_schema(schema, 1)
    assert scan_rows(record, 0, len(record)).schemas == {1: schema}


@pytest.mark.parametrize(
    ("number", "shown", "corrupt"),
    [(-0.0, 0.0, 0), (1e300, 1e300, 0), (5e-324, 5e-324, 0), (-5e-324, 0.0, 1), (math.inf, 0.0, 1), (math.nan, 0.0, 1)],
)
def test_only_what_cannot_have_been_counted_is_damage(number: float, shown: float, corrupt: int) -> None:
    file, reader = row_file(), RowReader()
    cells, index = file.table(LOST).place(("oom", "/a"))
    cells[index] = number
    for _ in range(2):
        assert totals(reader, content_of(file))["oom", "/a"] == (shown,)
    assert reader.corrupt == corrupt


def test_a_counter_is_also_summed_for_each_file() -> None:
    """With what other cells count in it too, and whatever rows change, come, or go with their file."""
    files = [row_file() for _ in range(2)]
    reader = RowReader("gunicorn_request_size_bytes")
    for step in range(5):
        for number, file in enumerate(files):
            count(file, REQUESTS, ("GET", f"/{step}", "200"), number + 1.0)
            count(file, REQUESTS, ("GET", "/0", "200"), 1.0)
            count(file, LOST, ("oom", "/a"))
        totals(reader, *map(content_of, files))
        # the cell of the first size has what the counter has, and nothing else was counted
        assert reader.sums_by_file() == {0: 2.0 * (step + 1), 1: 3.0 * (step + 1)}
    anew = row_file()
    count(anew, REQUESTS, ("GET", "/", "200"), 7.0)
    reader.read([RowContent(1, "made anew", START, content_of(anew))])
    assert reader.sums_by_file() == {0: 10.0, 1: 7.0}


def test_what_cannot_be_right_is_in_no_sum_of_a_file() -> None:
    """Whatever else of the file changes afterwards; a file that is cut keeps its last sum."""
    file, reader = row_file(), RowReader("gunicorn_requests_lost_total")
    for number, route in ((math.nan, "/a"), (2.0, "/b"), (4.0, "/c")):
        count(file, LOST, ("oom", route), number)
    totals(reader, content_of(file))
    assert reader.sums_by_file() == {0: 6.0}
    count(file, LOST, ("oom", "/b"))
    totals(reader, content_of(file))
    assert reader.sums_by_file() == {0: 7.0}

    file, reader = row_file(), RowReader("gunicorn_requests_lost_total")
    for route in ("/a", "/b", "/c"):
        count(file, LOST, ("oom", route), 2.0)
    totals(reader, content_of(file))
    count(file, LOST, ("oom", "/a"))
    assert totals(reader, content_of(file)[: file.end - 8])["oom", "/c"] == (2.0,)
    assert reader.sums_by_file() == {0: 7.0}


def test_files_are_read_up_to_a_limit_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes counts once, a second one beyond the limit is left out, and that is counted."""
    monkeypatch.setattr(row_reader, "MOST_BYTES", SIZE * 3 // 2)
    files, reader = [row_file() for _ in range(2)], RowReader()
    for file, route in zip(files, ("/a", "/b"), strict=True):
        count(file, LOST, ("oom", route))
    for times in (1.0, 2.0):
        assert totals(reader, content_of(files[0])) == {("oom", "/a"): (times,)}
        count(files[0], LOST, ("oom", "/a"))
    assert reader.corrupt == 0
    reader = RowReader()
    assert totals(reader, *map(content_of, files)) == {("oom", "/a"): (3.0,)}
    assert reader.corrupt == 1


def test_label_sets_that_are_gone_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "MOST_SETS", 2)
    reader = RowReader()
    for number in range(5):
        file = row_file()
        count(file, LOST, ("oom", f"/{number}"))
        read = reader.read([RowContent(0, number, START, content_of(file))])
        assert [total.values for total in read] == [("oom", f"/{number}")]
    assert reader.corrupt == 0


@pytest.mark.parametrize(
    "values", [("GET", "/a/{id}", "200"), ("", "", ""), ("GET", "/ü", "200"), ("x" * 5000, "", "2")]
)
def test_a_row_is_written_as_it_is_encoded(values: tuple[str, ...]) -> None:
    schema = RowSchema(("method", "route", "status"), (CellGroup("gunicorn_requests_total", ("method",), (0.1, 1.0)),))
    memory = bytearray(1 << 16)
    file = RowFile(memoryview(memory), START, lambda _o, _s: None, clock=lambda: 1 << 40)
    table = file.table(schema)
    begin = file.end
    _, first = table.place(values)
    written = bytes(memory[begin : file.end])
    assert written == encode_row(schema.cells, 1, values, 1 << 40)
    assert 8 * (first + schema.cells) == file.end
    assert table.place(values)[1] == first
