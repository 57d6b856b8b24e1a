"""Pages from remembered heads of lines are, to the byte, those of prometheus_client's encoders."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Exemplar, Metric, Timestamp
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.samples import Sample

from promgun.collect.live_family import LiveFamilies
from promgun.exposition.formats import Page
from promgun.exposition.lines import LineWriter
from promgun.metrics.catalog import BY_NAME, CATALOG

ENCODERS = (text, openmetrics)
COMPUTED = [spec for spec in CATALOG if spec.kind != "histogram"]
TYPES = ("counter", "gauge", "summary", "histogram", "gaugehistogram", "unknown", "info", "stateset")
SUFFIXES = ("", "_total", "_bucket", "_sum", "_count", "_created", "_gsum", "_gcount", "_info")
names = st.sampled_from(["a", "a_created", "a_total", "b", "b:c", "größe", "0.0"])
texts = st.text(st.sampled_from('ab"\\\\\n\r\x0b\x85\u2028 {},=0.\U0001f600'), max_size=2)
values = (
    st.floats() | st.integers(-(10**20), 10**20) | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e6, 1e21])
)
labels = st.dictionaries(st.sampled_from(["le", "n", "path", "größe"]), texts, max_size=3)
extras: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": st.just(1.5) | st.just(Timestamp(1, 5)) | st.just(0),
        "exemplar": st.just(Exemplar({"trace": "x"}, 0.5)),
    },
)
nothing: st.SearchStrategy[dict[str, Any]] = st.just({})
samples = st.tuples(st.sampled_from(SUFFIXES), labels, values, nothing | nothing | extras)


@st.composite
def families(draw: st.DrawFn) -> list[Metric]:
    """Draw a page; a name can come twice, with other samples or another type."""
    page = []
    for _ in range(draw(st.integers(0, 4))):
        family = Metric("x", draw(texts), draw(st.sampled_from(TYPES)))
        family.name = draw(names)
        family.unit = draw(st.sampled_from(["", "", "seconds"]))
        drawn = draw(st.lists(samples, max_size=6))
        family.samples = [Sample(family.name + suffix, given, value, **more) for suffix, given, value, more in drawn]
        page.append(family)
    return page


def outcome(write: Callable[[], bytes]) -> object:
    """Return the page, or the kind of error there is instead."""
    try:
        return write()
    except ValueError as error:
        return type(error)


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@pytest.mark.parametrize("encode", ENCODERS, ids=["text", "openmetrics"])
@given(pages=st.lists(families(), min_size=1, max_size=4))
def test_pages_are_those_of_the_encoder(encode: Any, pages: list[list[Metric]]) -> None:
    writer = LineWriter(encode)
    for page in [*pages, *pages]:
        assert outcome(partial(writer.write, page)) == outcome(partial(encode, Page(page)))


@pytest.mark.parametrize("encode", ENCODERS, ids=["text", "openmetrics"])
@pytest.mark.parametrize(
    "more", [{"timestamp": 0}, {"timestamp": 1.5}, {"exemplar": Exemplar({"t": "x"}, 0.5)}], ids=str
)
def test_a_series_may_have_more_than_a_value_on_some_pages(encode: Any, more: dict[str, Any]) -> None:
    writer = LineWriter(encode)
    family = Metric("c", "Help.", "counter")
    for extra in ({}, more, {}):
        family.samples = [Sample("c_total", {"n": "1"}, 2.0, **extra), Sample("c_created", {"n": "1"}, 3.0)][
            : 1 + len(extra)
        ]
        assert writer.write([family]) == encode(Page([family]))


@pytest.mark.parametrize("encode", ENCODERS, ids=["text", "openmetrics"])
def test_the_encoder_is_asked_once_for_what_does_not_change(encode: Any) -> None:
    asked = []

    def counting(registry: Any) -> bytes:
        asked.append(sum(len(family.samples) for family in registry.collect()))
        page: bytes = encode(registry)
        return page

    writer = LineWriter(counting)
    family = Metric("c", "Help.", "counter")
    for value in (1.0, 2.5):
        family.samples = [Sample("c_total", {"n": str(n)}, value + n) for n in range(50)]
        assert writer.write([family]) == encode(Page([family]))
    assert sum(asked) == 50


def test_what_is_remembered_is_bounded_by_the_largest_page() -> None:
    writer = LineWriter(text)
    family = Metric("g", "Help.", "gauge")
    most = 0
    for page in range(100):
        family.samples = [Sample("g", {"n": f"{page}.{n}"}, 1.0) for n in range(200)]
        assert writer.write([family]) == text(Page([family]))
        most = max(most, sum(len(known.heads) for known in writer._families.values()))
    assert most <= 2 * 200 + 1000


@st.composite
def computed(
    draw: st.DrawFn,
) -> list[tuple[int, tuple[tuple[str, ...], ...], list[float], tuple[tuple[str, str], ...]]]:
    """Draw a page of computed families: a spec, label sets, their values, and constant labels."""
    page = []
    for number in draw(st.lists(st.integers(0, len(COMPUTED) - 1), unique=True, max_size=3)):
        width = len(COMPUTED[number].labels)
        sets = draw(st.lists(st.tuples(*[texts] * width), unique=True, min_size=1, max_size=4))
        given = draw(st.lists(values.map(float), min_size=len(sets), max_size=len(sets)))
        page.append((number, tuple(sets), given, draw(st.sampled_from([(), (("zone", '%s"'),)]))))
    return page


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@pytest.mark.parametrize("encode", ENCODERS, ids=["text", "openmetrics"])
@given(pages=st.lists(computed(), min_size=1, max_size=4))
def test_lines_of_computed_families_are_those_of_the_encoder(encode: Any, pages: list[Any]) -> None:
    writer, live = LineWriter(encode), LiveFamilies()
    for page in [*pages, *pages, *reversed(pages)]:
        made = [live.family(COMPUTED[number], *rest) for number, *rest in page]
        assert writer.write(made) == encode(Page(made))


def test_a_family_whose_numbers_are_the_same_is_not_written_again() -> None:
    """Zero and minus zero are equal and have two texts."""
    writer, live = LineWriter(text), LiveFamilies()
    sets = (("1",), ("2",))
    for numbers in ([0.0, 1.0], [-0.0, 1.0], [math.nan, 1.0], [math.nan, 1.0]):
        page = [live.family(BY_NAME["gunicorn_worker_capacity"], sets, numbers, ())]
        assert writer.write(page) == text(Page(page))
    written = writer._families["gunicorn_worker_capacity", "gauge", page[0].documentation, ""].written
    writer.write([live.family(BY_NAME["gunicorn_worker_capacity"], (("1",), ("2",)), [math.nan, 1.0], ())])
    assert writer._families["gunicorn_worker_capacity", "gauge", page[0].documentation, ""].written is written
