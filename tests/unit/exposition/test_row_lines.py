"""Lines that are written from numbers are, to the byte, what prometheus_client's encoders write of the samples."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from promgun.collect.row_family import RowFamily
from promgun.exposition.formats import Page
from promgun.exposition.lines import LineWriter
from promgun.exposition.openmetrics import allowed
from promgun.metrics.catalog import CATALOG
from promgun.metrics.families.promgun import SCRAPE_DURATION_SECONDS
from promgun.metrics.families.requests import REQUEST_DURATION_SECONDS, REQUESTS

BOUNDS = ((0.1,), (0.005, 1.0, 5e6), (-1.0, 0.0, 2.5))
ENCODERS = pytest.mark.parametrize("encode", [text, openmetrics], ids=["text", "openmetrics"])
texts = st.text(st.sampled_from('ab"\\\\\n\r %\x85\u2028{},=0.\U0001f600'), max_size=3)
#: -0.0 is in no cell, and would be written as 0.0
numbers = st.floats().filter(lambda number: str(number) != "-0.0") | st.integers(0, 10**20).map(float)


@st.composite
def families(draw: st.DrawFn) -> RowFamily:
    """Draw a family of the catalogue with any label values and numbers, and buckets as in no or several versions."""
    spec = draw(st.sampled_from(CATALOG))
    names = tuple(sorted(spec.labels))
    rows = {}
    for values in draw(st.lists(st.tuples(*[texts] * len(names)), max_size=4)):
        bounds = draw(st.sampled_from(BOUNDS)) if spec.kind == "histogram" else ()
        cells = len(bounds) + 2 if bounds else 1
        rows[values] = bounds, tuple(draw(st.lists(numbers, min_size=cells, max_size=cells)))
    return RowFamily(spec, names, rows)


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@ENCODERS
@given(pages=st.lists(st.lists(families(), max_size=3), min_size=1, max_size=4))
def test_lines_are_those_of_the_encoder(encode: Any, pages: list[list[RowFamily]]) -> None:
    writer = LineWriter(encode)
    for page in [*pages, *pages]:
        assert writer.write(page) == encode(Page(page))


@ENCODERS
def test_a_label_set_may_get_other_buckets(encode: Any) -> None:
    writer = LineWriter(encode)
    for bounds in BOUNDS:
        numbers = tuple(map(float, range(len(bounds) + 2)))
        page = [
            RowFamily(
                REQUEST_DURATION_SECONDS, ("method", "route", "status"), {("GET", "%s", "200"): (bounds, numbers)}
            )
        ]
        assert writer.write(page) == encode(Page(page))


@ENCODERS
def test_samples_that_are_put_in_the_place_of_numbers_are_written(encode: Any) -> None:
    family = RowFamily(REQUESTS, ("method", "route", "status"), {("GET", "/", "200"): ((), (3.0,))})
    writer = LineWriter(encode)
    assert b" 3.0" in writer.write([family])
    family.samples = [sample._replace(value=4.0) for sample in family.samples]
    assert b" 4.0" in writer.write([family])
    assert b" 3.0" not in writer.write([family])


def test_label_sets_that_are_gone_are_forgotten() -> None:
    writer = LineWriter(text)
    for number in range(1000):
        writer.write([RowFamily(REQUESTS, ("route",), {(f"/{number}",): ((), (1.0,))})])
    (known,) = writer._families.values()
    assert len(known.rows._templates) <= 102


@pytest.mark.parametrize(("bounds", "sums"), [((0.0, 1.0), 1), ((-1.0, 0.0), 0)])
def test_a_histogram_with_a_bound_below_zero_has_no_sum_in_openmetrics(bounds: tuple[float, ...], sums: int) -> None:
    family = RowFamily(REQUEST_DURATION_SECONDS, (), {(): (bounds, (1.0, 2.0, 3.0, 4.5))})
    (shown,) = allowed([family])
    assert sum(sample.name.endswith("_sum") for sample in shown.samples) == sums


def test_a_gauge_of_no_label_is_one_line() -> None:
    page = LineWriter(text).write([RowFamily(SCRAPE_DURATION_SECONDS, (), {(): ((), (0.25,))})])
    assert page.splitlines()[-1] == b"promgun_scrape_duration_seconds 0.25"
