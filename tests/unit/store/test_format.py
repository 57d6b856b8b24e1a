"""The file format: what is written is read, also by prometheus_client, and nothing that stands in a file raises."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

from promgun.store import format as fmt
from promgun.store.format import (
    encode_entry,
    encode_header,
    go_string,
    header_error,
    parse_series_key,
    read_edition,
    read_used,
    salvage,
    scan,
    series_key,
)
from tests.support.store_fixtures import flips, key_of

TEXT = st.text(max_size=12)
KEYS = st.builds(series_key, TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=2), TEXT)
ENTRIES = st.lists(st.tuples(KEYS, st.floats(allow_nan=False)), max_size=5)
EXAMPLES = settings(max_examples=100, deadline=None)


def content(entries: list[tuple[str, float]]) -> bytes:
    """Return a file of these entries."""
    body = b"".join(encode_entry(key)[:-16] + struct.pack("dd", value, 0.0) for key, value in entries)
    return encode_header(fmt.HEADER_SIZE + len(body), 0xDEADBEEF) + body


def values(data: bytes, found: fmt.Scan) -> list[tuple[str, float]]:
    """Return keys and values of what a scan found."""
    return [(key, struct.unpack_from("d", data, at)[0]) for key, at in found.entries]


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@EXAMPLES
@given(ENTRIES)
def test_what_is_written_is_read(entries: list[tuple[str, float]]) -> None:
    data = content(entries)
    found = scan(data, read_used(data))
    assert values(data, found) == entries
    assert (found.end, found.error) == (len(data), "")
    assert not header_error(read_used(data), len(data))
    assert read_edition(data) == 0xDEADBEEF


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@EXAMPLES
@given(ENTRIES)
def test_prometheus_client_reads_what_we_write(entries: list[tuple[str, float]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "counter_slot0.db")
        path.write_bytes(content(entries) + bytes(64))
        read = [(key, value) for key, value, *_ in MmapedDict.read_all_values_from_file(str(path))]  # type: ignore[no-untyped-call] # upstream
        assert read == entries


@EXAMPLES
@given(st.dictionaries(KEYS, st.floats(allow_nan=False), max_size=5))
def test_we_read_what_prometheus_client_writes(entries: dict[str, float]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "counter_1.db")
        written = MmapedDict(str(path))  # type: ignore[no-untyped-call] # upstream
        for key, value in entries.items():
            written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call] # upstream
        written.close()  # type: ignore[no-untyped-call] # upstream
        data = path.read_bytes()
        found = scan(data, read_used(data))
        assert dict(values(data, found)) == entries
        assert not found.error
        assert read_edition(data) == 0


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@EXAMPLES
@given(ENTRIES, st.data())
def test_a_prefix_holds_a_prefix_of_the_entries(entries: list[tuple[str, float]], data: st.DataObject) -> None:
    whole = content(entries)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    found = scan(cut, read_used(whole))
    assert values(cut, found) == entries[: len(found.entries)]
    assert found.end <= max(len(cut), fmt.HEADER_SIZE)


@EXAMPLES
@given(st.binary(max_size=400), st.integers(-(2**31), 2**31 - 1), st.integers(0, 500))
def test_nothing_raises(data: bytes, used: int, start: int) -> None:
    found = scan(data, used, start)
    assert start <= found.end <= max(start, len(data))
    for key, at in found.entries:
        assert parse_series_key(key) is not None
        assert start < at <= len(data) - 16
    header_error(read_used(data), len(data))
    read_edition(data)
    assert salvage(salvage(data)) == b"" or salvage(encode_header(0) + salvage(data)) == salvage(data)


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@EXAMPLES
@given(ENTRIES.filter(bool), st.binary(min_size=8, max_size=200), st.data())
def test_damage_costs_only_the_entry_that_it_is_in(
    entries: list[tuple[str, float]], noise: bytes, data: st.DataObject
) -> None:
    noise = noise[: len(noise) // 8 * 8].replace(b'["', b"[[")
    at = data.draw(st.integers(0, len(entries)))
    parts = [content([entry])[fmt.HEADER_SIZE :] for entry in entries]
    body = b"".join([*parts[:at], noise, *parts[at:]])
    damaged = encode_header(fmt.HEADER_SIZE + len(body)) + body
    found = scan(damaged, len(damaged))
    # The noise may begin with a length that reaches into the next entries: these alone may be missing.
    kept = values(damaged, found)
    assert kept[:at] == entries[:at]
    assert set(kept) <= set(entries)
    assert kept == entries or found.error


def test_each_wrong_bit_in_a_key_costs_only_its_entry() -> None:
    entries = [(key_of(n), float(n)) for n in range(3)]
    parts = [content([entry])[fmt.HEADER_SIZE :] for entry in entries]
    key_end = len(parts[1]) - 16
    for position, damaged in flips(parts[1]):
        data = encode_header(8 + sum(map(len, parts))) + parts[0] + damaged + parts[2]
        found = values(data, scan(data, len(data)))
        assert found[0] == entries[0]
        assert found[-1] == entries[2]
        if position >= key_end:
            assert [key for key, _ in found] == [key for key, _ in entries]
        else:
            assert len(found) == 2 or found[1][1] == 1.0


def test_what_does_not_end_is_given_up() -> None:
    junk = b'xxxx["xx' * 2000
    data = encode_header(0) + junk + encode_entry(key_of(1))
    found = scan(data, len(data))
    assert (found.entries, found.end) == ([], fmt.HEADER_SIZE)
    assert found.error


@pytest.mark.parametrize(
    "key",
    [
        "",
        "[",
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '["a", "b", {}, ' + "[" * 100_000 + "]" * 100_001,
        '["' + "[" * 100_000 + "]",
        "{}",
        "[1, 2, 3, 4]",
        '["a", "b", {}]',
        '["a", "b", {}, "d", "e"]',
        '["a", "b", [], "d"]',
        '["a", "b", {"l": 1}, "d"]',
        '["a", null, {}, "d"]',
        '["a", "b", {}, "d"] ',
        '["a", "b", {}, ' + "9" * 5000 + "]",
    ],
)
def test_what_is_no_key(key: str) -> None:
    assert parse_series_key(key) is None
    data = encode_header(0) + encode_entry(key) + encode_entry(key_of(1))
    assert [found for found, _ in scan(data, len(data)).entries] == [key_of(1)]


@pytest.mark.parametrize("label", ["", '"', "\\", "\n", "\0", "ü", "\ud800", "x" * 65536])
def test_any_text_can_be_a_label(label: str) -> None:
    key = series_key("family", "family_total", {"label": label}, "Help.")
    data = encode_header(0) + encode_entry(key)
    assert [found for found, _ in scan(data, len(data)).entries] == [key]


@EXAMPLES
@given(TEXT, TEXT, st.dictionaries(TEXT, TEXT), TEXT)
def test_keys_are_spelled_as_upstream(family: str, sample: str, labels: dict[str, str], documentation: str) -> None:
    upstream = mmap_key(family, sample, list(labels), list(labels.values()), documentation)
    assert series_key(family, sample, labels, documentation) == upstream


@EXAMPLES
@given(st.floats())
def test_bounds_are_spelled_as_upstream(bound: float) -> None:
    assert go_string(bound) == floatToGoString(bound)  # type: ignore[no-untyped-call] # upstream


@pytest.mark.parametrize("bound", [0.005, 1.0, 999999.0, 1048576.0, 16777216.0, 1e10, 1e16, 1e300, -5.0, math.inf])
def test_well_known_bounds_are_spelled_as_upstream(bound: float) -> None:
    assert go_string(bound) == floatToGoString(bound)  # type: ignore[no-untyped-call] # upstream


@pytest.mark.parametrize(
    ("used", "size", "wrong"),
    [(8, 8, False), (48, 64, False), (7, 64, True), (0, 64, True), (-1, 64, True), (72, 64, True), (44, 64, True)],
)
def test_headers_that_cannot_be_right(used: int, size: int, *, wrong: bool) -> None:
    assert bool(header_error(used, size)) is wrong
