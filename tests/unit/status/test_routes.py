"""What was counted by route, in a store and on a page; what happened between; which routes are told one by one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from promgun.collect.page import Collector
from promgun.collect.route_sums import RouteTotals
from promgun.metrics.counters import Counters
from promgun.metrics.label_sets import OVERFLOW
from promgun.metrics.recorder import Recorder
from promgun.status.from_page import routes_of
from promgun.status.json import MOST_ROUTES, to_json
from promgun.status.routes import first_of_each, ranked, routes_between, summed
from promgun.status.texts import NOTHING
from promgun.store.board import Role
from promgun.store.master_info import write_facts
from tests.support.snapshots import routed, watched
from tests.support.store_fixtures import opened
from tests.unit.collect.test_page import FACTS


def test_store_and_page_say_the_same_of_routes(tmp_path: Path) -> None:
    """Two slots with other buckets, one that counts no CPU time, beyond the cap, with an excluded route."""
    with opened(tmp_path, Role.WORKER) as first, opened(tmp_path, Role.WORKER) as second:
        one = Recorder(first.store, Counters(first.store, 1000), (0.1, 1.0), (10.0,), cpu=True)
        two = Recorder(second.store, Counters(second.store, 1000), (0.5, 1.0), (10.0,))
        for recorder in (one, two):
            for number, route in enumerate(("/a", "/health", "/b", "/a", "", "/c")):
                status = 500 if number == 3 else 200
                recorder.record("GET", route, status, number / 3, 0, 0)
                recorder.count_cpu(route, 0.25)
        assert first.store.directory is not None
        write_facts(first.store.directory, replace(FACTS, max_label_sets=4, exclude_routes=("/health",)))
        collector = Collector(tmp_path)
        read = collector.read().routes
        assert read == routes_of(collector.collect())
        assert {route: totals.requests for route, totals in read.items()} == {"/a": 4, "": 4, "/b": 2, OVERFLOW: 2}
        assert read["/a"] == RouteTotals(4, 2, 2.0, 0.5, (0.1, 0.5, 1.0, math.inf), (1, 2, 4, 4))
        # A route that nothing happened to is the same object: whoever compares need not look into it.
        one.record("GET", "/b", 200, 5.0, 0, 0)
        again = collector.read().routes
        assert again["/a"] is read["/a"]
        assert again["/b"].busy == pytest.approx(read["/b"].busy + 5.0)


def test_what_routes_did_in_an_interval() -> None:
    earlier, later = routed(4, 5), routed(4, 15)
    # A restart: the counters of this one began anew.
    earlier["/route/3/<id>"] = replace(earlier["/route/3/<id>"], requests=1e6)
    found = {route.route: route for route in routes_between(earlier, later, 10.0)}
    busiest, plain, idle, first = (found[name] for name in ("/route/3/<id>", "/route/1/<id>", "/route/2/<id>", ""))
    assert (busiest.requests, plain.requests, idle.requests) == (60, 20, 0)
    assert (plain.requests_per_second, plain.error_share, plain.busy) == (2.0, 0.0, 4.0)
    assert plain.cpu_share == pytest.approx(0.04)
    assert plain.busy_share == pytest.approx(20 / 90)
    assert (first.error_share, idle.error_share) == (0.1, None)
    read = [plain.quantile_text(0.5), plain.quantile_text(0.95), idle.quantile_text(0.5)]
    assert read == ["0–0.1 s", "0.1–1 s", NOTHING]  # noqa: RUF001 - dashes
    together = summed(list(found.values()))
    assert (together.requests, together.busy_share) == (90, 1.0)
    assert together.cpu_share == pytest.approx(0.18)
    assert ranked(found.values(), "busy") == [busiest, plain, first, idle]
    assert routes_between({}, {"": RouteTotals(0, 0, 0, None, (math.inf,), (0,))}, 1.0)[0].cpu_share is None


def test_the_routes_that_are_told_are_the_first_of_each_order() -> None:
    routes = list(routes_between({}, routed(200, 1), 1.0))
    failing = routes[7]._replace(errors=routes[7].requests, busy=0.0)
    slow = routes[8]._replace(counts=(0.0, 0.0, routes[8].requests), busy=0.0)
    routes[7:9] = failing, slow
    told = first_of_each(routes, 20)
    assert len(told) == 20
    assert {failing, slow} <= set(told)
    assert told[0].route == "/route/199/<id>"
    assert told == ranked(told, "busy")


def test_json_is_bounded_and_adds_up() -> None:
    read = json.loads(to_json(*watched(1, 10, routes=1000)))
    rest = read["routes_left_out"]
    assert len(read["routes"]) == MOST_ROUTES
    assert rest["routes"] == 1000 - MOST_ROUTES
    assert sum(route["busy_share"] for route in [*read["routes"], rest]) == pytest.approx(1.0, abs=1e-4)
    assert read["routes"][0]["texts"]["p95"] == "0.1–1 s"  # noqa: RUF001 - a dash
    assert json.loads(to_json(*watched(1, 10, routes=3)))["routes_left_out"] is None
    # No route has a name: there is nothing to tell them apart by.
    assert json.loads(to_json(*watched(1, 10, routes=1)))["routes"] == []
