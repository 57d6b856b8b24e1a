"""The reader: all that is good, exactly, whatever stands beside it and whatever happens meanwhile."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promgun.store import format as fmt
from promgun.store import series_table
from promgun.store.files import MAX_SIZE, ValueFile
from promgun.store.new_file import Owner
from promgun.store.reader import StoreReader
from tests.support.store_fixtures import (
    OBSTACLES,
    client_of,
    damaged_contents,
    descriptors,
    flips,
    key_of,
    open_directory,
    page_totals,
    slots_of,
    stock_samples,
    totals,
    write_file,
)

HEALTHY = {key_of(n, "healthy"): n + 0.5 for n in range(3)}
HEALTHY_TOTALS = {f"healthy_total{{n={n}}}": n + 0.5 for n in range(3)}
THREE = {key_of(n): n + 1.5 for n in range(3)}
THREE_TOTALS = {f"c_total{{n={n}}}": n + 1.5 for n in range(3)}


def unfolded(*_: object) -> dict[Any, Any]:
    """Fold nothing."""
    return {}


def make(path: Path) -> None:
    """Make a run's directory."""
    open_directory(path).close()


def stock(path: Path) -> dict[str, float]:
    """Return what prometheus_client makes of the files of all slots, wherever they are linked."""
    for file in sorted(slots_of(path).iterdir()):
        slot, _, prefix = file.name.partition(".")
        if slot.isdecimal():
            link = client_of(path) / f"{prefix}_slot{slot}.db"
            link.unlink(missing_ok=True)
            link.hardlink_to(file)
    return stock_samples(client_of(path))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A run with one healthy file, in slot 1."""
    make(tmp_path)
    write_file(slots_of(tmp_path) / "1.counter", HEALTHY)
    return tmp_path


@pytest.fixture
def victim(store: Path) -> Path:
    """The file that something happens to."""
    return slots_of(store) / "0.counter"


def bytes_in_use(path: Path) -> bytes:
    data = path.read_bytes()
    return data[: fmt.read_used(data)]


def healthy(found: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in found.items() if key.startswith("healthy")}


def c_only(found: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in found.items() if key.startswith("c_")}


# ---- merging


def test_slots_are_added_up(tmp_path: Path) -> None:
    make(tmp_path)
    for slot in range(12):
        write_file(slots_of(tmp_path) / f"{slot}.counter", {key_of(n): float(slot + n) for n in range(3)})
    assert totals(tmp_path) == stock(tmp_path) == {f"c_total{{n={n}}}": 66.0 + 12 * n for n in range(3)}


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    reading = StoreReader(tmp_path / "gone").read(unfolded)
    assert (reading.series, reading.files, reading.size, reading.corrupt) == ([], 0, 0, 0)


def test_what_the_store_takes_up(store: Path, victim: Path) -> None:
    write_file(victim, THREE)
    reading = StoreReader(store).read(unfolded)
    assert reading.files == 2
    assert reading.size == sum(path.stat().st_size for path in slots_of(store).iterdir())


@pytest.mark.parametrize("seed", range(40))
def test_sums_run_in_slot_order_and_never_sink(tmp_path: Path, seed: int) -> None:
    """The order of float additions decides the last bit, and Prometheus takes any decrease for a reset."""
    make(tmp_path)
    random_ = random.Random(seed)
    amounts = [random_.random() * 10 ** random_.randint(-12, 6) for _ in range(10)]
    write_file(slots_of(tmp_path) / "9.counter", {key_of(1): amounts[9]})
    reader = StoreReader(tmp_path)
    last = totals(tmp_path, reader)["c_total{n=1}"]
    for slot in random_.sample(range(9), 9):
        write_file(slots_of(tmp_path) / f"{slot}.counter", {key_of(1): amounts[slot]})
        found = totals(tmp_path, reader)["c_total{n=1}"]
        assert found >= last
        last = found
    in_order = 0.0
    for amount in amounts:
        in_order += amount
    assert totals(tmp_path)["c_total{n=1}"] == last == in_order


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_kept_between_readings_changes_no_sum(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Slots have keys in orders of their own, get new ones, and lose their files, which then keep their values."""
    path = tmp_path_factory.mktemp("run")
    make(path)
    reader = StoreReader(path)
    content: dict[str, dict[str, float]] = {}
    amounts = st.floats(0, 1e9) | st.sampled_from([0.0, 1.0, 1e-9])
    for _ in range(data.draw(st.integers(1, 6))):
        name = f"{data.draw(st.integers(0, 3))}.{data.draw(st.sampled_from(['counter', 'gauge_sum', 'gauge_max']))}"
        family = {"counter": "c", "gauge_sum": "s", "gauge_max": "m"}[name.partition(".")[2]]
        suffix = "_total" if family == "c" else ""
        keys = [fmt.series_key(family, family + suffix, {"n": str(n)}, "Help.") for n in range(4)]
        had = content.get(name, {})
        new = data.draw(st.lists(st.sampled_from(keys), unique=True, min_size=0 if had else 1))
        # A file's owner appends entries and changes values.
        values = {key: data.draw(amounts) for key in [*had, *(key for key in new if key not in had)]}
        content[name] = values
        write_file(slots_of(path) / name, values)
        if data.draw(st.integers(0, 5)) == 0:
            totals(path, reader)
            (slots_of(path) / name).unlink()
        expected: dict[str, float] = {}
        for held in (content[name] for name in sorted(content)):
            for key, value in held.items():
                _, sample, labels, _ = fmt.parse_series_key(key) or ("", "", {}, "")
                text = f"{sample}{{n={labels['n']}}}"
                before = expected.get(text)
                expected[text] = value if before is None else max(before, value) if sample == "m" else before + value
        found = totals(path, reader)
        assert found == pytest.approx(expected)
        if all((slots_of(path) / name).exists() for name in content):
            assert found == totals(path)


@pytest.mark.parametrize("mode", ["liveall", "livesum", "livemax", "livemin", "livemostrecent"])
def test_live_gauges_count_only_while_their_owner_lives(tmp_path: Path, mode: str) -> None:
    make(tmp_path)
    key = fmt.series_key("g", "g", {}, "Help.")
    for slot in range(2):
        file = ValueFile(slots_of(tmp_path) / f"{slot}.gauge_{mode}", Owner())
        (index,) = file.indexes([key])
        file.cells[index], file.cells[index + 1] = slot + 1.0, slot + 1.0
        file.close()
    living = {0, 1}
    reader = StoreReader(tmp_path, lambda slot: slot in living)
    both = totals(tmp_path, reader)
    assert (3.0 if mode == "livesum" else 1.0 if mode == "livemin" else 2.0) in both.values()
    living.remove(1)
    assert list(totals(tmp_path, reader).values()) == [1.0]
    living.clear()
    assert totals(tmp_path, reader) == {}
    living.update({0, 1})
    assert totals(tmp_path, reader) == both


def test_new_series_and_new_files_are_seen(store: Path, victim: Path) -> None:
    reader = StoreReader(store)
    for count in range(1, 200, 13):
        file = ValueFile(victim, Owner())
        for index in file.indexes([key_of(f"{n:04}") for n in range(count)]):
            file.cells[index] += 1.0
        file.close()
        found = totals(store, reader)
        assert found == totals(store)
        assert len(found) == count + 3
    write_file(slots_of(store) / "7.histogram", {fmt.series_key("h", "h_sum", {}, "Help."): 2.0})
    assert totals(store, reader)["h_sum{}"] == 2.0


def test_nothing_is_parsed_twice(store: Path, victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(victim, THREE)
    reader = StoreReader(store)
    before = totals(store, reader)
    parsed: list[int] = []
    real = fmt.scan

    def scan(*arguments: Any) -> fmt.Scan:
        parsed.append(1)
        return real(*arguments)

    monkeypatch.setattr(fmt, "scan", scan)
    for _ in range(3):
        assert totals(store, reader) == before
    assert parsed == []


def test_a_key_that_many_slots_have_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    for slot in range(5):
        write_file(slots_of(tmp_path) / f"{slot}.counter", THREE)
    parsed: list[str] = []
    real = fmt.parse_series_key

    def parse(key: str) -> fmt.SeriesKey | None:
        parsed.append(key)
        return real(key)

    monkeypatch.setattr(fmt, "parse_series_key", parse)
    reader = StoreReader(tmp_path)
    assert totals(tmp_path, reader) == {name: 5 * value for name, value in THREE_TOTALS.items()}
    assert sorted(parsed) == sorted(THREE)
    assert not reader._files._parsed, "kept for one reading"


def test_what_found_no_room_is_shown_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A family of too many series goes, and in the same moment others come, while the reader still holds all of it."""
    monkeypatch.setattr(series_table, "MOST_SERIES", 10)
    make(tmp_path)
    slots = slots_of(tmp_path)
    reader = StoreReader(tmp_path)
    few = {key_of(n, "few"): 1.0 for n in range(6)}
    shown = {f"few_total{{n={n}}}": 2.0 for n in range(6)}
    write_file(slots / "1.counter", {key_of(n, "many"): 1.0 for n in range(20)})
    assert totals(tmp_path, reader) == {}
    (slots / "1.counter").unlink()
    for slot in (2, 3):
        write_file(slots / f"{slot}.counter", few)
    totals(tmp_path, reader)
    assert totals(tmp_path, reader) == shown
    damages = reader._files.corrupt
    assert totals(tmp_path, reader) == shown
    assert reader._files.corrupt == damages


def test_a_recreated_file_is_another_one_even_with_the_same_inode(tmp_path: Path) -> None:
    """File systems give a freed inode number to the next file; the size can be the same as well."""
    make(tmp_path)
    path = slots_of(tmp_path) / "0.gauge_livesum"
    reader = StoreReader(tmp_path)
    keys = [fmt.series_key(name, name, {}, "Help.") for name in ("g", "k")]
    for order in (keys, keys[::-1], keys):
        # in place: the inode stays
        fresh = tmp_path / "fresh"
        write_file(fresh, dict(zip(order, (1.0, 2.0), strict=True)))
        if path.exists():
            path.write_bytes(fresh.read_bytes())
            fresh.unlink()
        else:
            fresh.rename(path)
        first = "g" if order is keys or order == keys else "k"
        assert totals(tmp_path, reader) == totals(tmp_path)
        assert totals(tmp_path)[f"{first}{{}}"] == 1.0


# ---- foreign entries


@pytest.mark.parametrize("kind", OBSTACLES)
@pytest.mark.parametrize("name", ["0.counter", "3.gauge_all", "12.histogram"])
def test_what_is_no_file_is_passed_by(store: Path, kind: str, name: str) -> None:
    OBSTACLES[kind](slots_of(store) / name)
    reader = StoreReader(store)
    before = descriptors()
    for _ in range(3):
        reading = reader.read(unfolded)
        assert {item.sample for item in reading.series} == {"healthy_total"}
    assert descriptors() == before
    assert reading.corrupt == 1
    assert reading.files == 1


@pytest.mark.parametrize(
    "name",
    [
        "app.db",
        "counter",
        "counter_slot0.db",
        "counter_4711.db",
        "notes.txt",
        "0.gauge",
        "0.info",
        ".bad-0.counter",
        ".new-0.counter",
        "0.counter.bak",
        "-1.counter",
        "x0.counter",
        "1234567.counter",
    ],
)
def test_files_of_other_names_are_not_ours(store: Path, name: str) -> None:
    (slots_of(store) / name).write_bytes(b"SQLite format 3\0" + bytes(500))
    reading = StoreReader(store).read(unfolded)
    assert reading.corrupt == 0
    assert totals(store) == HEALTHY_TOTALS


def test_a_directory_that_is_a_file_is_an_empty_store(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    assert StoreReader(path).read(unfolded).series == []


# ---- damage


@pytest.mark.parametrize("kind", damaged_contents(b"x" * 64))
def test_a_damaged_file_costs_only_itself(store: Path, victim: Path, kind: str) -> None:
    write_file(victim, THREE)
    victim.write_bytes(damaged_contents(bytes_in_use(victim))[kind])
    reader = StoreReader(store)
    for round_ in range(3):
        reading = reader.read(unfolded)
        assert reading.corrupt == 1
        assert len(reading.complaints) == (round_ == 0)
    found = totals(store)
    assert healthy(found) == HEALTHY_TOTALS
    assert c_only(found) == (THREE_TOTALS if kind == "negative end" else {})
    # The next owner heals or sets aside.
    file = ValueFile(victim, Owner())
    file.close()
    assert totals(store, reader) == found
    assert reader.read(unfolded).corrupt == 1
    assert healthy(stock(store)) == HEALTHY_TOTALS


def test_an_oversize_file_is_not_read(store: Path, victim: Path) -> None:
    write_file(victim, THREE)
    os.truncate(victim, MAX_SIZE + 1)
    reading = StoreReader(store).read(unfolded)
    assert reading.corrupt == 1
    assert totals(store) == HEALTHY_TOTALS


def test_every_cut_costs_only_what_was_cut(store: Path, victim: Path) -> None:
    write_file(victim, THREE)
    good = bytes_in_use(victim)
    ends = [at + 16 for _, at in fmt.scan(good, len(good)).entries]
    for size in range(len(good) + 1):
        victim.write_bytes(good[:size])
        found = totals(store)
        whole = sum(end <= size for end in ends)
        assert found == HEALTHY_TOTALS | dict(list(THREE_TOTALS.items())[:whole])
        reader = StoreReader(store)
        assert reader.read(unfolded).corrupt == (size < len(good))


def test_what_was_read_once_is_kept_when_the_file_is_cut(store: Path, victim: Path) -> None:
    write_file(victim, THREE)
    good = victim.read_bytes()
    for size in range(0, fmt.read_used(good), 7):
        victim.write_bytes(good)
        reader = StoreReader(store)
        assert totals(store, reader) == HEALTHY_TOTALS | THREE_TOTALS
        os.truncate(victim, size)
        for _ in range(2):
            assert totals(store, reader) == HEALTHY_TOTALS | THREE_TOTALS
            assert reader.read(unfolded).corrupt == 1


def test_what_was_read_once_is_kept_when_the_file_cannot_be_read(
    store: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(victim, THREE)
    reader = StoreReader(store)
    before = totals(store, reader)
    real = os.open

    def too_many(path: Any, *rest: Any, **more: Any) -> int:
        if path == victim.name:
            raise OSError(24, "Too many open files", path)
        return real(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", too_many)
        for _ in range(3):
            assert totals(store, reader) == before
    victim.rename(store / "elsewhere")
    victim.mkdir()
    assert totals(store, reader) == before


@pytest.mark.unmeasured("the processor alone bounds it, and measuring makes it several times as slow")
def test_every_wrong_bit_costs_at_most_the_series_that_it_is_in(store: Path, victim: Path) -> None:
    write_file(victim, THREE)
    good = bytes_in_use(victim)
    entries = fmt.scan(good, len(good)).entries
    begins = [8, *[at + 16 for _, at in entries]]
    for position, content in flips(good):
        victim.write_bytes(content)
        found = totals(store)
        assert healthy(found) == HEALTHY_TOTALS
        entry = sum(position >= begin for begin in begins) - 1
        if entry < 0:
            continue
        # One bit makes another's key of a key: no format without a checksum can tell.
        twins = {f"c_total{{n={chr(ord(str(entry)) ^ bit)}}}" for bit in (1, 2)}
        others = {key: value for n, (key, value) in enumerate(THREE_TOTALS.items()) if n != entry and key not in twins}
        assert others.items() <= found.items()


def test_no_wrong_bit_in_a_header_costs_anything_that_was_read(store: Path, victim: Path) -> None:
    write_file(victim, {**THREE, key_of("x" * 200): 9.0})
    good = victim.read_bytes()
    everything = totals(store)
    for position, header in flips(good[:8]):
        victim.write_bytes(good)
        reader = StoreReader(store)
        assert totals(store, reader) == everything
        victim.write_bytes(header + good[8:])
        if position < 4:
            assert totals(store, reader) == everything
            assert reader.read(unfolded).corrupt == 1 or fmt.read_used(header) > fmt.read_used(good)
        # A reader that never saw the file goes by what stands in it, wherever the end is said to be.
        fresh = totals(store)
        assert healthy(fresh) == HEALTHY_TOTALS
        assert fresh == everything or fmt.scan(good, fmt.read_used(header)).error == ""
        # The owner that takes the file over finds all of it.
        ValueFile(victim, Owner()).close()
        assert totals(store, reader) == totals(store) == everything


def test_a_kill_at_any_byte_of_an_append_costs_nothing(store: Path, victim: Path) -> None:
    write_file(victim, THREE)
    before = victim.read_bytes()
    write_file(victim, {key_of("new"): 0.0})
    after = victim.read_bytes()
    begin, end = fmt.read_used(before), fmt.read_used(after)
    known = StoreReader(store)
    expected = HEALTHY_TOTALS | THREE_TOTALS
    victim.write_bytes(before)
    assert totals(store, known) == expected
    for cut in range(begin, end + 1):
        victim.write_bytes(before[:begin] + after[begin:cut] + before[cut:])
        assert totals(store, known) == totals(store) == expected
    victim.write_bytes(after)
    assert totals(store, known) == totals(store) == expected | {"c_total{n=new}": 0.0}
    assert known.read(unfolded).corrupt == 0


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.tuples(st.integers(0, 260), st.binary(min_size=1, max_size=24)), min_size=1, max_size=4))
def test_scribbles_cost_only_the_file_that_they_are_in(store: Path, scribbles: list[tuple[int, bytes]]) -> None:
    victim = slots_of(store) / "0.counter"
    victim.unlink(missing_ok=True)
    write_file(victim, THREE)
    known = StoreReader(store)
    assert totals(store, known) == HEALTHY_TOTALS | THREE_TOTALS
    content = bytearray(bytes_in_use(victim))
    for position, noise in scribbles:
        content[position : position + len(noise)] = noise
    victim.write_bytes(content)
    for reader in (known, StoreReader(store)):
        assert healthy(totals(store, reader)) == HEALTHY_TOTALS
    page_totals(store)
    ValueFile(victim, Owner()).close()
    assert healthy(totals(store, known)) == HEALTHY_TOTALS


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.binary(max_size=600))
def test_any_bytes_cost_only_the_file_that_they_are_in(store: Path, content: bytes) -> None:
    victim = slots_of(store) / "0.counter"
    victim.write_bytes(content)
    assert healthy(totals(store)) == HEALTHY_TOTALS
    page_totals(store)


@pytest.mark.parametrize("kind", ["counter", "histogram", "summary", "gauge_all", "gauge_min", "gauge_unknown"])
@pytest.mark.parametrize(
    "key",
    [
        fmt.series_key("", "", {}, ""),
        fmt.series_key("family", "other_total", {}, ""),
        fmt.series_key("family", "familyx", {}, ""),
        fmt.series_key("", "_total", {}, ""),
        fmt.series_key("family", "_total", {}, ""),
    ],
)
def test_names_that_no_metric_has_are_left_out(store: Path, kind: str, key: str) -> None:
    good = {"counter": "g_total", "histogram": "g_sum", "summary": "g_sum"}.get(kind, "g")
    write_file(slots_of(store) / f"0.{kind}", {key: 1.0, fmt.series_key("g", good, {}, ""): 2.0})
    reading = StoreReader(store).read(unfolded)
    assert {item.sample for item in reading.series} == {"healthy_total", good}
    assert reading.corrupt == 1


@pytest.mark.unmeasured("the processor alone bounds it, and measuring makes it several times as slow")
@pytest.mark.parametrize("after", ["pread", "fstat"])
def test_a_file_that_grows_while_it_is_read_is_not_damaged(
    store: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """Its writer appends, and makes it longer, between any two looks of the reader."""
    write_file(victim, THREE)
    reader = StoreReader(store)
    real = getattr(os, after)
    calls = 0

    def grow(fd: int, *rest: int) -> Any:
        nonlocal calls
        result = real(fd, *rest)
        if os.readlink(f"/proc/self/fd/{fd}") == str(victim):
            with monkeypatch.context() as patched:
                patched.setattr(os, after, real)
                size = victim.stat().st_size
                calls += 1
                while victim.stat().st_size == size:
                    write_file(
                        victim, {key_of(f"{calls}-{size}-{victim.stat().st_mtime_ns}-{n}"): 1.0 for n in range(200)}
                    )
        return result

    monkeypatch.setattr(os, after, grow)
    for _ in range(3):
        found = totals(store, reader)
        assert found.items() >= (HEALTHY_TOTALS | THREE_TOTALS).items()
    monkeypatch.undo()
    assert calls >= 3
    assert reader.read(unfolded).corrupt == 0
    assert totals(store, reader) == totals(store) == stock(store)
