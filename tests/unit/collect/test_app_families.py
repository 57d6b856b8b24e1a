"""The application's families with what is kept between pages are those that are made anew each time."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from promgun.collect.app_families import AppFamilies
from promgun.collect.families import build_family
from promgun.collect.series_family import SeriesFamily
from promgun.exposition.formats import Page
from promgun.exposition.lines import LineWriter
from promgun.exposition.openmetrics import allowed
from promgun.store.reader import families_of
from promgun.store.series import Series

ENCODERS = pytest.mark.parametrize("encode", [text, openmetrics], ids=["text", "openmetrics"])
KINDS = {"counter": "_total", "gauge": "", "summary": "_sum"}
numbers = st.floats(allow_nan=False) | st.sampled_from([math.nan, math.inf, -0.0, 0.0, 3.0, 1e6, 1e21, -2.0])
texts = st.text(st.sampled_from('a"\\\n%s{ü'), max_size=2)


def counter(family: str, value: float, help_: str = "Help.", **labels: str) -> Series:
    return Series(family, "counter", "", f"{family}_total", tuple(sorted(labels.items())), help_, tuple(labels), value)


def histogram(family: str, labels: dict[str, str], bounds: list[str], values: list[float]) -> list[Series]:
    pairs, names = tuple(sorted(labels.items())), tuple(sorted(labels))
    parts = [
        Series(family, "histogram", "", f"{family}_bucket", (*pairs, ("le", bound)), "Help.", names, value)
        for bound, value in zip(bounds, values, strict=False)
    ]
    return [*parts, Series(family, "histogram", "", f"{family}_sum", pairs, "Help.", names, values[-1])]


@st.composite
def stores(draw: st.DrawFn) -> list[Series]:
    """Draw the series of a few families; some are there twice, some histograms lack what they should have."""
    found: list[Series] = []
    for name in draw(st.lists(st.sampled_from(["a", "b", "c_total", "gunicorn_up"]), max_size=3, unique=True)):
        kind = draw(st.sampled_from([*KINDS, "histogram"]))
        sets = draw(
            st.lists(st.dictionaries(st.sampled_from(["n", "path"]), texts, max_size=2), min_size=1, max_size=3)
        )
        for labels in sets:
            if kind == "histogram":
                bounds = draw(st.sampled_from([["1.0", "5.0", "+Inf"], ["+Inf", "0.5"], ["-1.0", "+Inf"], ["2.0"]]))
                values = draw(st.lists(numbers, min_size=len(bounds) + 1, max_size=len(bounds) + 1))
                found += histogram(name, labels, bounds, values)
            else:
                pairs = tuple(sorted(labels.items()))
                sample = name + KINDS[kind]
                found.append(Series(name, kind, "", sample, pairs, "Help.", tuple(sorted(labels)), draw(numbers)))
    return found


def anew(series: list[Series]) -> list[Metric]:
    """Return what is shown of series that are seen for the first time."""
    families = {name: build_family(name, group) for name, group in families_of(series).items()}
    return [families[name] for name in sorted(families) if name != "gunicorn_up"]


@ENCODERS
@settings(max_examples=40, deadline=None)
@given(store=stores(), data=st.data())
def test_pages_are_to_the_byte_those_of_the_encoder(encode: Any, store: list[Series], data: st.DataObject) -> None:
    app, writer = AppFamilies(None), LineWriter(encode)
    for _ in range(4):
        shown = list(app.families(store))
        assert writer.write(allowed(shown)) == encode(Page(allowed(anew(store))))
        assert repr([family.samples for family in shown]) == repr([family.samples for family in anew(store)])
        for item in store:
            item.value = data.draw(numbers)
        change = data.draw(st.integers(0, 3))
        if change == 1 and store:
            store = [*store[:-1]]
        elif change == 2:
            store = [*store, counter("later", 1.0, n=str(len(store)))]
        elif change == 3:
            # as a reload does, for all series of a family
            for item in store:
                item.documentation = "Newer." if item.documentation == "Help." else "Help."


def test_a_page_that_is_kept_does_not_change_with_the_next() -> None:
    item = counter("c", 1.0)
    app = AppFamilies(None)
    (first,) = app.families([item])
    item.value = 2.0
    (second,) = app.families([item])
    assert [sample.value for family in (first, second) for sample in family.samples] == [1.0, 2.0]
    assert isinstance(first, SeriesFamily)
    assert first.layout is not None
    first.samples = []
    assert not first.samples
    assert len(second.samples) == 1


@ENCODERS
def test_the_encoder_is_asked_again_only_for_other_series(encode: Any) -> None:
    calls = 0

    def counted(registry: Any) -> bytes:
        nonlocal calls
        calls += 1
        page: bytes = encode(registry)
        return page

    app, writer = AppFamilies(None), LineWriter(counted)
    store = [counter("c", float(n), n=str(n)) for n in range(50)]
    writer.write(app.families(store))
    asked = calls
    for item in store:
        item.value += 1.5
    assert writer.write(app.families(list(store))) == encode(Page(anew(store)))
    assert calls == asked
    writer.write(app.families([*store, counter("c", 0.0, n="new")]))
    assert calls > asked


def test_families_that_cannot_be_shown_are_told_of_once() -> None:
    told: list[str] = []
    app = AppFamilies(told.append)
    bad = Series("", "counter", "", "_total", (), "", (), 1.0)
    ours = counter("gunicorn_requests", 1.0)
    for _ in range(3):
        store = [bad, ours, counter("c", 1.0)]
        assert [family.name for family in app.families(store)] == ["c"]
    assert len(told) == 2
    assert app.refused == 1
    assert any("promgun's own metric" in line for line in told)
