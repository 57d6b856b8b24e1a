"""The exported dashboard: its shape, and that every panel can be found, read and drawn."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from promgun.errors import UsageError
from promgun.export.grafana import COLUMNS, GrafanaOptions, grafana

DASHBOARD: dict[str, Any] = json.loads(grafana(GrafanaOptions()))
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_rows() -> None:
    titles = ["Overview", "Traffic", "Errors", "Latency", "Saturation", "Queues", "Workers", "Exits", "Deploys"]
    assert [row["title"] for row in ROWS] == [*titles, "promgun itself"]
    assert {panel["type"] for panel in PANELS} == {"timeseries", "stat", "heatmap", "table"}
    assert DASHBOARD["schemaVersion"] >= 39


def test_every_panel_is_explained_and_asks_the_chosen_source() -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["datasource"] == source
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        assert all(target["datasource"] == source for target in panel["targets"])
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)


def test_panels_neither_overlap_nor_leave_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= COLUMNS
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert taken.isdisjoint(cells), panel["title"]
        taken |= cells
    tops = [row["gridPos"]["y"] for row in ROWS]
    assert all(upper < lower for upper, lower in pairwise(tops))


def test_variables() -> None:
    source, *rest = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert [variable["name"] for variable in rest] == ["job", "instance", "route"]
    for variable in rest:
        assert variable["includeAll"]
        assert variable["current"]["value"] == ["$__all"]
        assert variable["datasource"]["uid"] == "${datasource}"


def test_tables_name_their_columns() -> None:
    tables = [panel for panel in PANELS if panel["type"] == "table"]
    assert tables
    for panel in tables:
        titles = {target["refId"]: target["legendFormat"] for target in panel["targets"]}
        organize = panel["transformations"][-1]["options"]
        assert {f"Value #{reference}": title for reference, title in titles.items()}.items() <= (
            organize["renameByName"].items()
        )
        styled = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
        assert styled <= set(titles.values())
        assert all(target["instant"] and target["format"] == "table" for target in panel["targets"])


def test_options() -> None:
    options = GrafanaOptions(title="Shop", uid="shop-1", job="shop", tags=("web",), refresh="10s", span="6h")
    made = json.loads(grafana(options))
    assert (made["title"], made["uid"], made["tags"], made["refresh"]) == ("Shop", "shop-1", ["web"], "10s")
    assert made["time"] == {"from": "now-6h", "to": "now"}
    assert made["templating"]["list"][1]["current"] == {"text": ["shop"], "value": ["shop"]}


@pytest.mark.parametrize(
    "options",
    [GrafanaOptions(uid="a b"), GrafanaOptions(uid=""), GrafanaOptions(uid="x" * 41), GrafanaOptions(span="x")],
)
def test_what_grafana_would_refuse(options: GrafanaOptions) -> None:
    with pytest.raises(UsageError):
        grafana(options)
