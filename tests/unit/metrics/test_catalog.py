"""The catalogue's handles and the closed sets of label values."""

from __future__ import annotations

import json

from promgun.metrics import label_values
from promgun.metrics.catalog import BY_NAME, CATALOG
from promgun.metrics.families import endpoint, listeners, master, promgun, requests, websockets, workers
from promgun.metrics.label_values import ExitCause, LabelValue
from promgun.metrics.spec import MetricSpec

GROUPS = (requests, websockets, workers, master, listeners, promgun, endpoint)


def test_a_handle_is_called_as_its_family() -> None:
    handles = {
        spec.name: handle for group in GROUPS for handle, spec in vars(group).items() if isinstance(spec, MetricSpec)
    }
    bare = {name: name.split("_", 1)[1].removesuffix("_total").upper() for name in BY_NAME}
    # A gauge and a counter whose names differ in the suffix alone.
    bare["gunicorn_websocket_connections"] = "WEBSOCKETS_OPEN"
    assert handles == bare


def test_no_family_is_there_twice() -> None:
    assert len(BY_NAME) == len(CATALOG) == sum(len(group.FAMILIES) for group in GROUPS)


def test_closed_sets_have_values_of_their_own_types() -> None:
    loose = [
        f"{spec.name}{{{label}}}"
        for spec in CATALOG
        for label, values in spec.closed.items()
        if not values or not all(isinstance(value, LabelValue) for value in values)
    ]
    assert loose == []


def test_closed_labels_are_labels() -> None:
    assert [spec.name for spec in CATALOG if not {*spec.closed} <= {*spec.labels}] == []


def test_a_label_value_reads_as_its_value_wherever_text_is_made() -> None:
    kinds = [kind for kind in vars(label_values).values() if isinstance(kind, type) and issubclass(kind, LabelValue)]
    values: list[LabelValue] = [value for kind in kinds for value in kind]
    assert len(values) > 40
    for value in values:
        text = "".join(list(value))
        assert type(str(value)) is str
        assert f"{value}" == f"{value!s}" == "%s" % value == value == text  # noqa: UP031 - as logging does it
        assert json.dumps({value: value}) == json.dumps({text: text})
        assert {text: 1}[value] == 1


def test_ends_that_somebody_asked_for_are_clean() -> None:
    assert {str(cause) for cause in ExitCause if not cause.unclean} == {
        "max_requests",
        "reload",
        "scale_in",
        "shutdown",
    }
