"""What collectors of the application may put on the page: nothing that costs a reader the page, whatever they give."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text

from promgun.collect.page_names import SUFFIXES, PageNames, count_refused
from promgun.endpoint.collected_families import checked_families, without_shown
from promgun.exposition.formats import Page
from promgun.metrics.catalog import CATALOG

BUCKETS = [["h_bucket", {"le": "1"}, 1.0], ["h_bucket", {"le": "+Inf"}, 2.0]]


class Refused:
    """Takes in what is refused."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def __call__(self, family: str, reason: str) -> None:
        """Note a family."""
        self.reasons[family] = reason


def page_of(shown: list[Metric], raw: list[Any]) -> tuple[list[Metric], Refused]:
    """Return a page with what is shown, and with what collectors give as far as it can be; both forms must parse."""
    refused = Refused()
    page = [*shown, *without_shown(shown, checked_families(raw, refused), refused)]
    openmetrics = generate_openmetrics(Page(page)).decode()  # type: ignore[no-untyped-call] # upstream
    list(text_string_to_metric_families(openmetrics))  # type: ignore[no-untyped-call] # upstream
    list(parse_text(generate_latest(Page(page)).decode()))
    return page, refused


def family(name: str, kind: str, *samples: list[Any], unit: str = "") -> list[Any]:
    return [name, kind, "Help.", unit, list(samples)]


GOOD = [
    family("g", "gauge", ["g", {"a": "x"}, float("nan")], ["g", {}, -1.0]),
    family("c", "counter", ["c_total", {}, 1.0], ["c_created", {}, 5.0]),
    family("named_total", "counter", ["named_total", {}, 1.0]),
    family("h", "histogram", *BUCKETS, ["h_count", {}, 2.0], ["h_sum", {}, 3.0]),
    family("gh", "gaugehistogram", ["gh_bucket", {"le": "+Inf"}, 2.0], ["gh_gcount", {}, 2.0], ["gh_gsum", {}, 3.0]),
    family("s_seconds", "summary", ["s_seconds", {"quantile": "0.5"}, 1.0], ["s_seconds_sum", {}, 1.0], unit="seconds"),
    family("i", "info", ["i_info", {"version": "1"}, 1.0], ["i_info", {"version": "2"}, 1.0]),
    family("e", "stateset", ["e", {"e": "up"}, 1.0], ["e", {"e": "down"}, 0.0]),
    family("u", "untyped", ["u", {}, 1.0]),
]


def test_good_families_are_shown() -> None:
    page, refused = page_of([], GOOD)
    assert not refused.reasons
    assert [found.name for found in page] == ["g", "c", "named", "h", "gh", "s_seconds", "i", "e", "u"]


def test_samples_of_a_group_stand_together_and_buckets_in_order() -> None:
    raw = family(
        "h",
        "histogram",
        ["h_bucket", {"le": "+Inf", "a": "x"}, 2.0],
        ["h_bucket", {"le": "+Inf", "a": "y"}, 1.0],
        ["h_bucket", {"le": "0.50", "a": "x"}, 1.0],
        ["h_bucket", {"le": "0.5", "a": "x"}, 7.0],
    )
    page, refused = page_of([], [raw])
    assert not refused.reasons
    assert [(sample.labels, sample.value) for sample in page[0].samples] == [
        ({"le": "0.5", "a": "x"}, 1.0),
        ({"le": "+Inf", "a": "x"}, 2.0),
        ({"le": "+Inf", "a": "y"}, 1.0),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        family("x", "histogram", ["x_bucket", {}, 1.0]),
        family("x", "histogram", ["x_bucket", {"le": "soon"}, 1.0]),
        family("x", "histogram", ["x_bucket", {"le": "NaN"}, 1.0]),
        family("x", "histogram", ["x_bucket", {"le": "1"}, 1.0]),
        family("x", "histogram", ["x_sum", {}, 1.0], ["x_count", {}, 1.0]),
        family("x", "histogram", ["x_bucket", {"le": "1"}, 2.0], ["x_bucket", {"le": "+Inf"}, 1.0]),
        family("x", "histogram", ["x_bucket", {"le": "+Inf"}, 1.0], ["x_sum", {}, 1.0]),
        family("x", "histogram", ["x_bucket", {"le": "+Inf"}, 1.0], ["x_sum", {}, 1.0], ["x_count", {}, 2.0]),
        family("x", "histogram", ["x_bucket", {"le": "+Inf"}, 1.5]),
        family("x", "gauge", ["x", {"": "y"}, 1.0]),
        family("x", "gauge", ["x", {"__name__": "y"}, 1.0]),
        family("x", "gauge", ["x", {"a b": "y"}, 1.0]),
        family("x", "gauge", ["x_total", {}, 1.0]),
        family("x", "gauge", ["y", {}, 1.0]),
        family("x", "gauge", ["", {}, 1.0]),
        family("x", "gauge", ["x", {"a": 1}, 1.0]),
        family("x", "gauge", ["x", {}, "one"]),
        family("x", "gauge", ["x", [], None]),
        family("x", "gauge", ["x"]),
        family("x", "counter", ["x", {}, 1.0]),
        family("x", "counter", ["x_total", {}, -1.0]),
        family("x", "counter", ["x_total", {}, float("nan")]),
        family("x", "summary", ["x", {}, 1.0]),
        family("x", "summary", ["x", {"quantile": "2"}, 1.0]),
        family("x", "info", ["x_info", {}, 2.0]),
        family("x", "info", ["x_info", {}, 1.0], unit="x"),
        family("x", "stateset", ["x", {"y": "up"}, 1.0]),
        family("x", "stateset", ["x", {"x": "up"}, 3.0]),
        family("x", "gauge", ["x", {}, 1.0], unit="seconds"),
        family("x", "nonsense", ["x", {}, 1.0]),
        family("x y", "gauge", ["x y", {}, 1.0]),
        family("", "gauge", ["", {}, 1.0]),
        ["x", "gauge", None, "", []],
        ["x"],
        [],
        None,
        7,
    ],
)
def test_what_a_reader_could_not_parse_is_refused_alone(bad: Any) -> None:
    page, refused = page_of([], [bad, family("good", "gauge", ["good", {}, 1.0])])
    assert [found.name for found in page] == ["good"]
    assert len(refused.reasons) == 1


def shown_family(name: str, kind: str) -> Metric:
    """Return a family of each kind as the page may have it."""
    return checked_families(
        [[name, kind, "Help.", "", [[part[0].replace("NAME", name), *part[1:]] for part in _SAMPLES[kind]]]],
        lambda *refused: pytest.fail(str(refused)),
    )[0]


_SAMPLES: dict[str, list[list[Any]]] = {
    "counter": [["NAME_total", {}, 1.0], ["NAME_created", {}, 1.0]],
    "gauge": [["NAME", {}, 1.0]],
    "histogram": [["NAME_bucket", {"le": "+Inf"}, 1.0], ["NAME_count", {}, 1.0], ["NAME_sum", {}, 1.0]],
    "gaugehistogram": [["NAME_bucket", {"le": "+Inf"}, 1.0], ["NAME_gcount", {}, 1.0], ["NAME_gsum", {}, 1.0]],
    "summary": [["NAME_count", {}, 1.0], ["NAME_sum", {}, 1.0]],
    "info": [["NAME_info", {}, 1.0]],
    "stateset": [],
    "unknown": [["NAME", {}, 1.0]],
}
_ENDS = ("", "_total", "_created", "_bucket", "_count", "_sum", "_gcount", "_gsum", "_info")


def test_names_of_samples_never_clash_whatever_the_kinds() -> None:
    clashes = 0
    for first in SUFFIXES:
        for second in SUFFIXES:
            for end in _ENDS:
                # a counter's name is its name without the ending
                name = f"x{end}" if second != "counter" or end != "_total" else "x_total_y"
                page, refused = page_of([shown_family("x", first)], [])
                raw = [
                    name,
                    second,
                    "Help.",
                    "",
                    [[part[0].replace("NAME", name), *part[1:]] for part in _SAMPLES[second]],
                ]
                page, refused = page_of(page, [raw])
                clashes += len(refused.reasons)
                assert len(page) + len(refused.reasons) == 2
    assert clashes > 50


def test_a_collector_s_gauge_beside_a_counter_of_that_sample_name() -> None:
    for name, kind in (("x_total", "gauge"), ("x_created", "unknown"), ("x", "info"), ("x", "gauge")):
        _, refused = page_of([shown_family("x", "counter")], [family(name, kind, *shown_samples(name, kind))])
        assert list(refused.reasons) == [name]
    page, refused = page_of([shown_family("x_total", "gauge")], [family("x", "counter", ["x_total", {}, 1.0])])
    assert list(refused.reasons) == ["x"]
    assert len(page) == 1


def shown_samples(name: str, kind: str) -> list[list[Any]]:
    return [[part[0].replace("NAME", name), *part[1:]] for part in _SAMPLES[kind]]


def test_names_of_ours_are_ours_with_each_suffix() -> None:
    names = PageNames()
    for spec in CATALOG:
        for kind in SUFFIXES:
            assert names.take(spec.family, kind) == spec.family
        assert names.take(f"{spec.family}_sum", "gauge") == spec.family
    assert not names.take("gunicorn_own", "counter")
    assert names.take("gunicorn.own", "gauge") == "gunicorn_own", "an encoder writes both as gunicorn_own"


def test_what_was_refused_is_counted_as_corrupt() -> None:
    errors = Metric("promgun_store_errors", "Help.", "counter")
    for reason in ("no_space", "corrupt"):
        errors.add_sample("promgun_store_errors_total", {"reason": reason}, 1.0)
    count_refused([Metric("g", "Help.", "gauge"), errors], 3)
    assert [sample.value for sample in errors.samples] == [1.0, 4.0]


NAMES = st.sampled_from(["x", "x_total", "x_sum", "y", "y_info", "gunicorn_up", "9", "a.b", "a_b", ""])
LABELS = st.dictionaries(
    st.sampled_from(["le", "quantile", "a", "", "__x", "x", "\udc80"]),
    st.sampled_from(["0.5", "1", "1.0", "+Inf", "NaN", "1e3", 'q"\\\n', "\udc80", "", "é"]),
    max_size=3,
)
VALUES = st.sampled_from([0.0, 1.0, 2.0, 1.5, -1.0, float("nan"), float("inf"), float("-inf")])


@st.composite
def families(draw: st.DrawFn) -> list[Any]:
    name, kind = draw(NAMES), draw(st.sampled_from([*SUFFIXES, "untyped", "other"]))
    ends = st.sampled_from([*_ENDS, *(SUFFIXES.get(kind, {""}))])
    samples = draw(
        st.lists(st.tuples(ends.map(lambda end: name + end), LABELS, VALUES).map(list), max_size=6),
    )
    return [
        name,
        kind,
        draw(st.sampled_from(["Help.", 'a\n"b"\\', "\udc80"])),
        draw(st.sampled_from(["", "x"])),
        samples,
    ]


@pytest.mark.unmeasured("it runs the same lines over and over, and measuring makes it several times as slow")
@settings(max_examples=300, deadline=None)
@given(st.lists(families(), max_size=4))
def test_whatever_collectors_give_the_page_can_be_parsed(raw: list[Any]) -> None:
    page_of([shown_family("y", "counter"), shown_family("x_count", "gauge")], raw)


@pytest.mark.needs("promtool")
def test_prometheus_own_tool_reads_the_page() -> None:
    raw = [*GOOD, *(family(f"c{end}", "gauge", [f"c{end}", {}, 1.0]) for end in _ENDS), family("h_bucket", "counter")]
    page, refused = page_of([shown_family("g_total", "gauge")], raw)
    assert set(refused.reasons) == {"c", "c_total", "c_created", "h_bucket"}
    tool = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(Page(page)), capture_output=True, check=False
    )
    # 3 tells of style alone
    assert tool.returncode in (0, 3), tool.stderr.decode()
    assert b"error while linting" not in tool.stderr
