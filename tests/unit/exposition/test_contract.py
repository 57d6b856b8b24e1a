"""The metric contract in its three forms."""

from __future__ import annotations

import json

from promgun.exposition.contract import render_catalog
from promgun.metrics.catalog import CATALOG
from promgun.metrics.spec import CounterFamily, GaugeFamily, MetricSpec

SPECS: tuple[MetricSpec, ...] = (
    GaugeFamily[tuple[()]](name="shop_up", help="1 while open.", group="shop"),
    CounterFamily[tuple[str, str]](
        name="shop_sales_total",
        help="Sales.",
        labels=("till", "mode"),
        group="tills",
        closed={"mode": ("cash", "card")},
    ),
)


def test_table_has_a_row_a_family() -> None:
    lines = render_catalog(CATALOG).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[spec.name, spec.kind] for spec in CATALOG]


def test_json_has_every_fact() -> None:
    assert json.loads(render_catalog(SPECS, "json"))[1] == {
        "name": "shop_sales_total",
        "type": "counter",
        "labels": ["till", "mode"],
        "values": {"mode": ["cash", "card"]},
        "group": "tills",
        "help": "Sales.",
    }


def test_markdown_is_grouped() -> None:
    assert render_catalog(SPECS, "markdown").splitlines() == [
        "| family | type | labels | meaning |",
        "|---|---|---|---|",
        "| **shop** | | | |",
        "| `shop_up` | gauge | – | 1 while open. |",  # noqa: RUF001 - the dash is meant
        "| **tills** | | | |",
        "| `shop_sales_total` | counter | till, mode (cash, card) | Sales. |",
    ]
