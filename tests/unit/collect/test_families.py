"""From merged series to families that any encoder can write and any parser read."""

from __future__ import annotations

import math
from typing import Any

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from promgun.collect.families import build_family
from promgun.store.reader import families_of
from promgun.store.series import Series
from tests.support.store_fixtures import samples


def series(kind: str, sample: str, value: float, mode: str = "", help_: str = "Help.", **labels: str) -> Series:
    pairs = tuple(sorted(labels.items()))
    names = tuple(label for label, _ in pairs if label != "le")
    family = sample.removesuffix("_total").removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
    return Series(family, kind, mode, sample, pairs, help_, names, value)


class Page:
    """What the encoders read."""

    def __init__(self, *families: Any) -> None:
        self._families = families

    def collect(self) -> Any:
        """Give the families."""
        return self._families


def parsed(*families: Any) -> dict[str, float]:
    generate_openmetrics(Page(*families))  # type: ignore[no-untyped-call] # upstream
    return samples(text_string_to_metric_families(generate_latest(Page(*families)).decode()))


def test_buckets_are_made_cumulative_in_the_order_of_their_bounds() -> None:
    family = build_family(
        "h",
        [
            series("histogram", "h_bucket", 4.0, le="+Inf"),
            series("histogram", "h_bucket", 1.0, le="10.0"),
            series("histogram", "h_sum", 70.5),
            series("histogram", "h_bucket", 2.0, le="9.0"),
            series("histogram", "h_bucket", 8.0, le="1.048576e+06"),
        ],
    )
    assert [(sample.name, sample.labels, sample.value) for sample in family.samples] == [
        ("h_bucket", {"le": "9.0"}, 2.0),
        ("h_bucket", {"le": "10.0"}, 3.0),
        ("h_bucket", {"le": "1.048576e+06"}, 11.0),
        ("h_bucket", {"le": "+Inf"}, 15.0),
        ("h_count", {}, 15.0),
        ("h_sum", {}, 70.5),
    ]
    assert parsed(family) == samples([family])


def test_each_label_set_has_buckets_of_its_own() -> None:
    family = build_family(
        "h",
        [
            series("histogram", "h_bucket", float(n), route=route, le=le)
            for n, route in enumerate("ab", 1)
            for le in ("1.0", "+Inf")
        ],
    )
    assert {key: value for key, value in samples([family]).items() if "count" in key} == {
        "h_count{route=a}": 2.0,
        "h_count{route=b}": 4.0,
    }


def test_bounds_that_are_spelled_differently_are_one_bucket() -> None:
    family = build_family("h", [series("histogram", "h_bucket", 1.0, le=le) for le in ("1", "1.0", "1e0", "+Inf")])
    assert samples([family]) == {"h_bucket{le=1.0}": 3.0, "h_bucket{le=+Inf}": 4.0, "h_count{}": 4.0, "h_sum{}": 0.0}


@pytest.mark.parametrize("bound", ["", "0x5", "1,0", "five", "nan", "-NaN"])
def test_a_bound_that_is_no_number_is_left_out(bound: str) -> None:
    good = [series("histogram", "h_bucket", 1.0, le="1.0"), series("histogram", "h_bucket", 2.0, le="+Inf")]
    family = build_family("h", [*good, series("histogram", "h_bucket", 7.0, le=bound)])
    assert samples([family]) == samples([build_family("h", good)])


def test_a_histogram_that_lost_its_last_bucket_is_shown_with_one() -> None:
    family = build_family("h", [series("histogram", "h_bucket", 2.0, le="1.0"), series("histogram", "h_sum", 1.5)])
    assert parsed(family) == {"h_bucket{le=1.0}": 2.0, "h_bucket{le=+Inf}": 2.0, "h_count{}": 2.0, "h_sum{}": 1.5}


@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        ("counter", "", 5.0),
        ("summary", "", 5.0),
        ("gauge", "sum", 5.0),
        ("gauge", "livesum", 5.0),
        ("gauge", "min", 2.0),
        ("gauge", "livemax", 3.0),
        ("gauge", "all", 2.0),
        ("gauge", "mostrecent", 2.0),
    ],
)
def test_a_change_of_the_help_makes_no_second_series(kind: str, mode: str, expected: float) -> None:
    """A new version of the application on the store of the old one."""
    old, new = series(kind, "x", 3.0, mode), series(kind, "x", 2.0, mode, "Better help.")
    old.stamp, new.stamp = 1.0, 2.0
    family = build_family("x", [old, new])
    assert [sample.value for sample in family.samples] == [expected]
    assert parsed(family)


def test_one_name_is_one_kind() -> None:
    """A new version of the application has made a gauge of a counter, or changed how the gauge is merged."""
    found = families_of(
        [
            series("counter", "x", 1.0),
            series("gauge", "x", 2.0, "max"),
            series("gauge", "y", 3.0, "max"),
            series("gauge", "y", 4.0, "min"),
        ]
    )
    assert {name: [item.value for item in group] for name, group in found.items()} == {"x": [1.0], "y": [3.0]}


def test_the_kinds_of_samples_a_family_has() -> None:
    family = build_family("s", [series("summary", "s_count", 3.0, l="x"), series("summary", "s_sum", 4.5, l="x")])
    assert (family.type, family.documentation) == ("summary", "Help.")
    assert parsed(family) == {"s_count{l=x}": 3.0, "s_sum{l=x}": 4.5}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 1e300, 5e-324])
def test_any_number_can_be_shown(value: float) -> None:
    assert str(parsed(build_family("g", [series("gauge", "g", value, "max")]))["g{}"]) == str(value)


@pytest.mark.parametrize("text", ['"', "\\", "\n", "\0", "ü", "�", "x" * 65536, "{}=,", ""])
def test_any_text_can_be_a_label_or_a_help(text: str) -> None:
    family = build_family("g", [series("gauge", "g", 1.0, "max", text, l=text)])
    (again,) = text_string_to_metric_families(generate_latest(Page(family)).decode())
    assert [sample.labels for sample in again.samples] == [{"l": text}]


def test_a_family_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="name"):
        build_family("", [series("gauge", "", 1.0)])
