"""Which globs and labels are taken, and what the variables say under plain Gunicorn."""

from __future__ import annotations

import pytest

from promgun.config.series_options import check_globs, check_labels, parse_flag, series_options_from, wants_request_cpu
from promgun.metrics.catalog import CATALOG


def test_of_labels_with_one_name_the_last_counts() -> None:
    assert check_labels(["zone=eu", "team = shop=a ", "zone=us"]) == ["zone=us", "team=shop=a"]


def test_every_label_of_the_contract_is_refused() -> None:
    for name in {"le", "quantile", *(label for spec in CATALOG for label in spec.labels)}:
        with pytest.raises(ValueError, match=f"'{name}' is a label of promgun's own metrics"):
            check_labels([f"{name}=x"])


def test_texts_that_no_page_can_have_are_made_harmless() -> None:
    assert check_labels(["zone=\udcff"]) == ["zone=?"]
    assert check_globs(["/\udcff*"]) == ["/?*"]


def test_variables_of_plain_gunicorn() -> None:
    complaints: list[str] = []
    environment = {
        "PROMGUN_METRICS_EXCLUDE_ROUTE": "/health* /ready",
        "PROMGUN_METRICS_GROUP_STATUS": "True",
        "PROMGUN_METRICS_LABEL": "zone=eu team=shop",
    }
    assert series_options_from(environment, complaints.append) == {
        "exclude_routes": ("/health*", "/ready"),
        "group_status": True,
        "labels": ("zone=eu", "team=shop"),
    }
    bad = {"PROMGUN_METRICS_GROUP_STATUS": "maybe", "PROMGUN_METRICS_LABEL": "status=1"}
    nothing = {"exclude_routes": (), "group_status": False, "labels": ()}
    assert not complaints
    assert series_options_from(bad, complaints.append) == series_options_from({}, complaints.append) == nothing
    assert [line.split()[2] for line in complaints] == list(bad)


@pytest.mark.parametrize(
    ("text", "expected"), [("1", True), ("yes", True), ("0", False), ("", False), (" Off ", False)]
)
def test_flags(text: str, expected: bool) -> None:  # noqa: FBT001 - a column
    assert parse_flag(text) is expected


@pytest.mark.parametrize(("value", "expected"), [(None, True), ("0", True), ("1", False), ("maybe", True)])
def test_cpu_under_plain_gunicorn(value: str | None, expected: bool) -> None:  # noqa: FBT001 - a column
    environment = {} if value is None else {"PROMGUN_NO_METRICS_REQUEST_CPU": value}
    assert wants_request_cpu(environment) is expected
