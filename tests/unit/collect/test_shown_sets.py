"""Excluded routes, grouped statuses, constant labels: applied by the reader, exact, and within the cap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from promgun.collect.page import Collector
from promgun.collect.reading import _newest_facts
from promgun.collect.shown_sets import Grouping, Shown, ShownSets
from promgun.endpoint.counts import EndpointCounts
from promgun.endpoint.negotiation import Form
from promgun.endpoint.rendering import Renderer
from promgun.exposition.formats import Page
from promgun.metrics.families.promgun import LABEL_SETS_FOLDED
from promgun.metrics.families.requests import FAILED_REQUESTS, REQUESTS
from promgun.metrics.label_sets import OVERFLOW
from promgun.store.board import Role
from promgun.store.master_info import MasterFacts, write_facts
from promgun.store.process import ProcessStore
from tests.support.store_fixtures import opened, samples
from tests.unit.collect.test_folding import MOST_BEYOND, Worker
from tests.unit.collect.test_page import FACTS
from tests.unit.collect.test_reading import tell

ROUTES = 5000
CAP = 1000
REQUEST_FAMILIES = ("gunicorn_requests_total", "gunicorn_request_duration_seconds_count")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProcessStore]:
    """The store of a worker."""
    with opened(tmp_path, Role.WORKER) as found:
        yield found.store


def say(store: ProcessStore, **options: object) -> None:
    """Write a master's facts, as at a start or a reload."""
    facts: MasterFacts = replace(FACTS, addresses=(), **options)  # type: ignore[arg-type] # fields of it
    assert store.directory is not None
    write_facts(store.directory, facts)


def of(page: dict[str, float], name: str) -> dict[str, float]:
    return {key: value for key, value in page.items() if key.startswith(f"{name}{{")}


def test_an_excluded_route_counts_without_one(store: ProcessStore, tmp_path: Path) -> None:
    worker = Worker(store, CAP)
    for route in ("/health/{probe}", "/items", "", "/Health/x"):
        worker.serve(route)
    collector = Collector(tmp_path)
    total = collector.collect()
    say(store, exclude_routes=("/health*", "/nothing"))
    page = samples(collector.collect())
    assert of(page, REQUESTS.name) == {
        "gunicorn_requests_total{method=GET,route=,status=200}": 2.0,
        "gunicorn_requests_total{method=GET,route=/items,status=200}": 1.0,
        "gunicorn_requests_total{method=GET,route=/Health/x,status=200}": 1.0,
    }
    assert not [key for key in page if "route=/health" in key]
    assert of(page, FAILED_REQUESTS.name)["gunicorn_failed_requests_total{error_type=E,method=GET,route=}"] == 2.0
    # The worker's totals know nothing of routes.
    assert of(page, "gunicorn_worker_requests_total") == of(samples(total), "gunicorn_worker_requests_total") != {}
    assert set(of(page, LABEL_SETS_FOLDED.name).values()) == {0.0}


def test_statuses_are_grouped_and_a_reload_shows_them_again(store: ProcessStore, tmp_path: Path) -> None:
    worker = Worker(store, CAP)
    for status in (200, 204, 404, 499, 799):
        worker.serve("/x", status)
    collector = Collector(tmp_path)
    say(store, group_status=True)
    grouped = samples(collector.collect())
    assert {key[-4:-1]: value for key, value in of(grouped, REQUESTS.name).items()} == {
        "2xx": 2.0,
        "4xx": 2.0,
        "HER": 1.0,
    }
    say(store)
    single = of(samples(collector.collect()), REQUESTS.name)
    assert {key.rpartition("=")[2] for key in single} == {"200}", "204}", "404}", "4xx}", "_OTHER}"}


def test_constant_labels_stand_on_every_series_of_ours_and_on_no_other(store: ProcessStore, tmp_path: Path) -> None:
    Worker(store, CAP).serve('/x"%s')
    constant = ("a=1", 'quoted=a"b\\c=%d', "zone=eu")
    say(store, labels=constant)
    collector, renderer = Collector(tmp_path), Renderer()
    page = EndpointCounts().join(collector.collect())
    expected = {"a": "1", "quoted": 'a"b\\c=%d', "zone": "eu"}
    assert all(expected.items() <= sample.labels.items() for family in page for sample in family.samples)
    text = renderer.render(page, Form()).decode()
    # as prometheus_client's own encoder writes the samples
    openmetrics = generate_openmetrics(Page(page)).decode()  # type: ignore[no-untyped-call] # upstream
    lines = {line for line in openmetrics.splitlines() if not line.startswith("#")}
    assert lines == {line for line in text.splitlines() if not line.startswith("#")}
    for family in parse_openmetrics(openmetrics):  # type: ignore[no-untyped-call] # upstream
        assert all(expected.items() <= sample.labels.items() for sample in family.samples)
    # A reload changes them, though the writer keeps the heads of its lines.
    say(store, labels=("a=2",))
    text = renderer.render(collector.collect(), Form()).decode()
    assert 'a="2"' in text
    assert 'a="1"' not in text
    assert "zone" not in text


def test_labels_that_no_page_can_have_are_left_out() -> None:
    facts = replace(FACTS, labels=("route=x", "le=1", "__a=1", "1a=2", "", "ok=yes", "empty="))
    assert Shown.of(facts).labels == (("ok", "yes"), ("empty", ""))
    assert Shown.of(None) == Shown(Grouping(), ())


@pytest.mark.parametrize("options", [{}, {"exclude_routes": ("/r1*",), "group_status": True}])
def test_the_cap_holds_with_five_thousand_routes(
    store: ProcessStore, tmp_path: Path, options: dict[str, object]
) -> None:
    # As many sets as a slot keeps, and the other routes from another worker, so that the page has to fold too.
    workers = [Worker(store, CAP)]
    with opened(tmp_path, Role.WORKER) as second:
        workers.append(Worker(second.store, CAP))
        say(store, max_label_sets=CAP, **options)
        collector, before = Collector(tmp_path), dict[str, float]()
        for number in range(ROUTES):
            workers[number % 2].serve(f"/r{number}", (200, 404, 500)[number % 3])
            if number % 2500 != 2499:
                continue
            page = samples(collector.collect())
            for name in REQUEST_FAMILIES:
                shown = of(page, name)
                assert sum(shown.values()) == number + 1
                assert len(shown) <= CAP + MOST_BEYOND
            folded = sum(value for key, value in of(page, REQUESTS.name).items() if OVERFLOW in key)
            assert page[f"{LABEL_SETS_FOLDED.name}{{family={REQUESTS.name}}}"] == folded > (number + 1) - 2 * CAP - 1
            counters = {key: value for key, value in before.items() if "_total{" in key or "_count{" in key}
            assert not [key for key, value in counters.items() if page.get(key, -1.0) < value]
            before = page


def test_excluded_routes_take_no_place_of_the_cap() -> None:
    sets = ShownSets()
    health = [f"/health/{number}" for number in range(10)]
    routes: list[tuple[str, ...]] = [("GET", route, "200") for route in (*health, "/a", "/b")]
    folded = sets.fold(2, Grouping(("/health/*",)))(REQUESTS.name, REQUESTS.labels, routes)
    assert {shown.values for shown in folded.values()} == {("GET", "", "200"), ("GET", OVERFLOW, "200")}
    assert folded["GET", "/b", "200"].at_page
    assert ("GET", "/a", "200") not in folded
    # Without the glob they come first.
    plain = sets.fold(2, Grouping())(REQUESTS.name, REQUESTS.labels, routes)
    assert ("GET", "/health/1", "200") not in plain
    assert plain["GET", "/a", "200"].values == ("GET", OVERFLOW, "200")


def test_the_newest_living_master_decides_then_the_last_one(tmp_path: Path) -> None:
    with opened(tmp_path, Role.MASTER) as old:
        assert old.store.own_slot() is not None
        tell(old.store, replace(FACTS, labels=("zone=old",), started=9000.0))
        with opened(tmp_path, Role.MASTER) as new:
            assert new.store.own_slot() is not None
            tell(new.store, replace(FACTS, labels=("zone=new",), started=5.0))
            assert dict(Collector(tmp_path).read().shown.labels) == {"zone": "new"}
    last = replace(FACTS, started=9000.0)
    assert _newest_facts((), (FACTS, last, FACTS)) is last
    assert _newest_facts((), ()) is None
