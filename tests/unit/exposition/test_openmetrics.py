"""A page stays readable whatever the application has observed."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, Summary
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
from prometheus_client.parser import text_string_to_metric_families as parse_text

from promgun.collect.live_family import LiveFamilies
from promgun.collect.row_family import RowFamily
from promgun.endpoint.negotiation import Form, Format
from promgun.endpoint.rendering import Renderer
from promgun.exposition.formats import render
from promgun.metrics.families.websockets import WEBSOCKET_CONNECTIONS, WEBSOCKETS_OPEN
from tests.support.store_fixtures import samples


@pytest.mark.parametrize("value", [-3.0, math.nan, 3.0])
@pytest.mark.parametrize("bounds", [(-5, 0), (0, 5)])
def test_any_observation_leaves_the_page_readable(value: float, bounds: tuple[float, ...]) -> None:
    registry = CollectorRegistry()
    Histogram("h", "Help.", ["a"], buckets=bounds, registry=registry).labels("x").observe(value)
    Histogram("fine", "Help.", ["a"], buckets=(1, 2), registry=registry).labels("x").observe(1)
    Summary("s", "Help.", registry=registry).observe(value)
    if not value < 0:
        Counter("c", "Help.", ["le"], registry=registry).labels("-1").inc(value)
    families = list(registry.collect())
    found = samples(parse(render(families, "openmetrics")))  # type: ignore[no-untyped-call] # upstream
    assert found["h_bucket{a=x,le=+Inf}"] == (0 if math.isnan(value) else 1)
    assert found["fine_sum{a=x}"] == found["fine_count{a=x}"] == found["s_count{}"] == 1
    assert ("h_sum{a=x}" in found) == ("h_count{a=x}" in found) == (value == 3 and bounds[0] == 0)
    assert ("s_sum{}" in found) == ("c_total{le=-1}" in found) == (value == 3)
    assert "h_count" in render(families, "text")


def test_a_gauge_and_a_counter_of_one_name_are_both_on_the_page() -> None:
    """OpenMetrics names a counter's family without ``_total``, and two families may not have one name."""
    families = [
        LiveFamilies().family(WEBSOCKETS_OPEN, (("1",),), [3.0], ()),
        RowFamily(WEBSOCKET_CONNECTIONS, ("result", "route"), {("accepted", "/chat"): ((), (7.0,))}),
    ]
    wanted = {
        "gunicorn_websocket_connections{worker_id=1}": 3.0,
        "gunicorn_websocket_connections_total{result=accepted,route=/chat}": 7.0,
    }
    renderer = Renderer()
    openmetrics = renderer.render(families, Form(Format.OPENMETRICS)).decode()
    assert samples(parse(openmetrics)) == wanted  # type: ignore[no-untyped-call] # upstream
    assert [(family.name, family.type) for family in parse(openmetrics)] == [  # type: ignore[no-untyped-call] # upstream
        ("gunicorn_websocket_connections", "gauge"),
        ("gunicorn_websocket_connections_total", "unknown"),
    ]
    text = renderer.render(families, Form(Format.TEXT)).decode()
    assert samples(parse_text(text)) == wanted
    assert "# TYPE gunicorn_websocket_connections_total counter\n" in text
    assert render(families, "openmetrics") == openmetrics
