"""What a request asks for, read from its headers and its query."""

from __future__ import annotations

import pytest

from promgun.endpoint.negotiation import Form, Format, accepts_gzip, choose_form, choose_format, read_names

TEXT, OPENMETRICS = Format.TEXT, Format.OPENMETRICS


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("text/*;q=0.2, */*;q=0.1", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT),
        ("application/json", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text; Version=1.0.0; Charset=UTF-8", OPENMETRICS),
        ('application/openmetrics-text;version="1.0.0"', OPENMETRICS),
        ("application/*", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", TEXT),
        ("application/openmetrics-text;version=2.0.0;q=1,application/openmetrics-text;q=0.9", OPENMETRICS),
        ("text/plain;version=1.0.0,application/openmetrics-text;version=1.0.0;q=0.1", OPENMETRICS),
        ("application/openmetrics-text;q=0.4,text/plain;q=0.5", TEXT),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.4", OPENMETRICS),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.5", TEXT),
        ("application/openmetrics-text, */*", OPENMETRICS),
        ("application/openmetrics-text;q=0, */*", TEXT),
        ("text/plain;q=0, */*", OPENMETRICS),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=nan", TEXT),
        ("application/openmetrics-text;q=-1", TEXT),
        ("application/openmetrics-text;q=0.1234", TEXT),
        ("application/openmetrics-text;q=9", OPENMETRICS),
        (",;,=;;q=1,/", TEXT),
    ],
)
def test_format_is_the_one_preferred(accept: str, chosen: Format) -> None:
    assert choose_format(accept) is chosen


@pytest.mark.parametrize(
    ("accept_encoding", "accepted"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("gzip;q=0.5, identity", False),
        ("gzip, identity;q=0.5", True),
        ("identity", False),
        ("br, zstd", False),
        ("gzippy", False),
        ("gzip;q=x", False),
    ],
)
def test_gzip_needs_to_be_allowed_and_not_second_choice(accept_encoding: str, *, accepted: bool) -> None:
    assert accepts_gzip(accept_encoding) is accepted


def test_names_are_read_from_the_query() -> None:
    assert read_names("name[]=a&name%5B%5D=b%20c&other=d&name[]=a&name[]=", 64) == {"a", "b c"}
    assert read_names("", 64) == frozenset()
    assert read_names("name[]=%ff%00", 64) == {"\ufffd\0"}


def test_names_are_limited() -> None:
    assert len(read_names("&".join(f"name[]={number}" for number in range(64)), 64)) == 64
    with pytest.raises(ValueError, match="fields"):
        read_names("&" * 64, 64)


def test_equal_wishes_are_one_form() -> None:
    first = choose_form("text/plain", "gzip", "name[]=a&name[]=b", 8)
    assert first == choose_form("", "gzip, br", "name[]=b&name[]=a", 8) == Form(TEXT, gzip=True, names=frozenset("ab"))
    assert hash(first) == hash(Form(TEXT, gzip=True, names=frozenset("ba")))
