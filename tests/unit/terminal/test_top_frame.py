"""Frames of the terminal view: everything is on them, and nothing is wider or longer than the screen."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import product

import pytest
from rich.cells import cell_len

from promgun.status import texts
from promgun.status.history import Point
from promgun.status.interval import Interval
from promgun.status.json import to_object
from promgun.terminal.top.charts import Glyphs, bars, pieces
from promgun.terminal.top.frame import frame, help_frame, page
from promgun.terminal.top.layout import Line
from promgun.terminal.top.view import ORDERS, Controls, View
from tests.support.offenders import offenders
from tests.support.snapshots import request, snapshot, watched

SIZES = [(80, 24), (200, 50), (79, 24), (60, 16), (59, 16), (40, 12), (20, 5), (9, 9), (3, 2), (1, 1), (300, 8)]
GLYPHS = Glyphs()
NOTHING = GLYPHS.nothing


def view(count: int = 4, seconds: int = 70, **changes: object) -> View:
    """An instance of so many workers that was watched for so long; every tenth second a worker was killed."""
    last, history = watched(count, seconds, **changes)  # type: ignore[arg-type] # the fields of a worker
    return View.of("shop", last, history)


def line_texts(lines: list[Line]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def drawn(shown: View, width: int = 80, height: int = 24, **controls: object) -> list[str]:
    return line_texts(frame(shown, Controls(**{"every": 1.0, **controls}), width, height, GLYPHS))  # type: ignore[arg-type]


# -- the whole -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 4, 40])
def test_frame_fills_the_screen_and_no_more(count: int) -> None:
    views = {seconds: view(count, seconds) for seconds in (3, 0)}

    def check(case: tuple[tuple[int, int], str, int]) -> None:
        (width, height), away, seconds = case
        lines = drawn(views[seconds], width, height, away=away)
        assert len(lines) == height
        assert max(map(cell_len, lines)) <= width

    gone = "gone since 12:00:00: " + "it does not answer " * 20
    assert offenders(product(SIZES, ("", gone), views), check) == {}


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=str)
def test_every_part_is_on_the_screen(size: tuple[int, int]) -> None:
    lines = drawn(view(requests_left=77), *size)
    text = "\n".join(lines)
    for part in (
        "shop  shop.wsgi:app  gthread  up 2m 50s",
        "workers   4 of 4: 2 busy, 1 hung, 1 idle",
        "requests  100 /s",
        "errors    1.00 %",
        "utilised  25.0 %",
        "queue     3 of 2048",
        "p50       0\N{EN DASH}0.1 s",
        "p95",
        "p99       0.1\N{EN DASH}1 s",
        "longest   1\N{EN DASH}5 s",
        "in use    4 of 16",
        "killed 7 (+7)  timeout 1",
        "q quit",
        "every 1 s",
        "77",
    ):
        assert part in text, part
    heading = next(line for line in lines if line.startswith("SLOT"))
    assert heading.split() == ["SLOT", "PID", "STATE", "REQUEST", "AGE", "REQ/S", "IN", "USE", "CPU", "MEM", "LEFT"]
    row = next(line for line in lines if "4004" in line)
    assert row.split()[-6:] == ["14s", "40.0", "1/4", "50%", "23.8M", "77"]
    assert sum("█" in line for line in lines) == 5, "the charts of ten figures: a line has two, or one that is full"


def test_head_before_there_is_an_interval_has_dashes() -> None:
    lines = drawn(view(seconds=0))
    assert f"requests  {NOTHING} /s" in lines[2]
    assert f"p50       {NOTHING}" in lines[2]
    assert not any(bar in "".join(lines) for bar in GLYPHS.bars)


def test_instance_that_went_away_is_told_and_still_shown() -> None:
    lines = drawn(view(), away="gone since 12:00:00, waiting for it")
    assert lines[1].startswith("gone since 12:00:00, waiting for it")
    assert "4 of 4" in lines[2]


def test_paused_display_says_so() -> None:
    assert "PAUSED" in drawn(view(), paused=True)[0]
    assert "p go on" in drawn(view(), paused=True)[-1]


def test_help_fits_the_smallest_common_screen() -> None:
    lines = line_texts(help_frame(80, 24, GLYPHS))
    assert len(lines) <= 24
    assert max(map(cell_len, lines)) <= 80
    assert not any(GLYPHS.cut in line for line in lines), "nothing is cut"


def test_paper_has_all_workers_and_no_keys() -> None:
    lines = line_texts(page(view(40), Controls(every=1.0), None, GLYPHS))
    assert sum(line.split()[:1] == [str(slot)] for slot in range(1, 41) for line in lines) == 40
    assert any("x" * 8 * 37 in line for line in lines), "paths are whole"
    assert not any("q quit" in line for line in lines)


# -- workers ---------------------------------------------------------------------------------------------------------


def test_workers_that_do_not_fit_are_summed_up() -> None:
    lines = drawn(view(40))
    more = next(line for line in lines if line.startswith("…"))
    shown = [line for line in lines if line[:4].strip().isdigit()]
    left = 40 - len(shown)
    assert more.startswith(f"… {left} more")
    assert "hung" in more
    assert f"{left * 4} " in more, "capacity"
    assert texts.memory(left * 25_000_000) in more
    assert texts.rate(sum(10 * slot for slot in range(40 - left + 1, 41))) in more


@pytest.mark.parametrize(
    ("order", "first"), [("slot", 1), ("requests", 8), ("age", 7), ("in use", 2), ("cpu", 1), ("memory", 1)]
)
def test_order_of_the_rows(order: str, first: int) -> None:
    assert view(8).rows(order)[0].worker.worker_id == first


def test_orders_are_cycled_through_by_name() -> None:
    assert list(ORDERS) == ["slot", "requests", "age", "in use", "cpu", "memory"]


def test_oldest_request_of_the_application_is_shown_first() -> None:
    running = (request("", 9.0, "reading"), request("/slow", 3.0), request("/fast", 1.0))
    line = next(line for line in drawn(view(1, running=running, in_progress=3)) if "4001" in line)
    assert "GET /slow +2" in line
    assert "3.0s" in line


def test_a_running_request_is_shown_with_its_route() -> None:
    for path, shown in (("/users/5", "GET /users/5 [/users/<int:user>]"), ("", "GET /users/<int:user>")):
        running = (replace(request(path, 3.0), route="/users/<int:user>"),)
        line = next(line for line in drawn(view(1, running=running), width=120) if "4001" in line)
        assert shown in line
    named = (replace(request("/about", 3.0), route="/about"),)
    assert "GET /about " in next(line for line in drawn(view(1, running=named), width=120) if "4001" in line)


def test_request_whose_head_is_being_read_shows_its_phase() -> None:
    line = next(line for line in drawn(view(1, running=(request("", 9.0, "reading"),))) if "4001" in line)
    assert "(reading)" in line


def test_page_without_details_shows_the_age_alone() -> None:
    row = drawn(view(1, running=(), pid=None, oldest_request=2.5))[9]
    assert row.split()[:4] == ["1", NOTHING, "busy", "2.5s"]


def test_column_of_a_limit_only_where_there_is_one() -> None:
    assert "LEFT" not in "".join(drawn(view()))


def test_column_of_a_loop_s_lag_only_where_there_is_a_loop() -> None:
    assert "LAG" not in "".join(drawn(view()))
    lines = drawn(view(loop_lag=0.0125))
    heading = next(line for line in lines if line.startswith("SLOT"))
    assert heading.split()[-4:] == ["USE", "LAG", "CPU", "MEM"]
    assert next(line for line in lines if "4004" in line).split()[-4:] == ["12.5", "ms", "50%", "23.8M"]
    last = drawn(view(40, loop_lag=2.5))
    assert " 2.50 s " in next(line for line in last if line.startswith("…")), "the largest of those that do not fit"


def test_what_is_in_use_stands_alone_without_a_limit() -> None:
    line = next(line for line in drawn(view(capacity=0)) if "4004" in line)
    assert line.split()[-3:] == ["1", "50%", "23.8M"]


# -- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (texts.rate(None), NOTHING),
        (texts.rate(0), "0"),
        (texts.rate(0.04), "0.04"),
        (texts.rate(99.96), "100"),
        (texts.rate(12345.6), "12346"),
        (texts.share(0.0), "0 %"),
        (texts.share(0.0002), "0.02 %"),
        (texts.share(1.0), "100 %"),
        (texts.latency(0.0004), "0.40 ms"),
        (texts.latency(0.99949), "999 ms"),
        (texts.latency(0.9996), "1.00 s"),
        (texts.latency(99.96), "1m 39s"),
        (texts.age(None), ""),
        (texts.age(9.94), "9.9s"),
        (texts.age(130), "2m10s"),
        (texts.memory(None), NOTHING),
        (texts.memory(500), "500B"),
        (texts.memory(1024 * 1024 - 1), "1.00M"),
        (texts.memory(3.5 * 1024**5), "3584T"),
        (texts.cpu(1.404), "140%"),
    ],
)
def test_numbers_are_short(text: str, expected: str) -> None:
    assert text == expected


def test_bars_tell_nothing_from_zero_from_little() -> None:
    assert bars([None, 0, 0.001, 0.5, 1, 2], 1.0, GLYPHS) == " ▁▂▅██"
    assert bars([0, 0], 0.0, GLYPHS) == "▁▁"


def point(at: float, seconds: float, rate: float) -> Point:
    return Point(
        at=at,
        seconds=seconds,
        workers=1,
        in_progress=0,
        in_use=0,
        queue=None,
        requests_per_second=rate,
        error_share=None,
        p50=None,
        p95=None,
        p99=None,
        longest=None,
        utilisation=None,
    )


def test_chart_shows_the_largest_of_each_piece_where_it_happened() -> None:
    points = [point(1000 + second, 1.0, second) for second in range(1, 61)]
    assert pieces(points, lambda item: item.requests_per_second, 6, 60.0, 1069.0) == [19, 29, 39, 49, 59, 60]
    assert pieces(points, lambda item: item.queue, 6, 60.0, 1060.0) == [None] * 6


def test_long_interval_fills_all_its_pieces_and_the_past_is_blank() -> None:
    read = pieces([point(1060.0, 30.0, 5.0)], lambda item: item.requests_per_second, 6, 60.0, 1060.0)
    assert read[:2] == [None, None]
    assert read[-3:] == [5.0, 5.0, 5.0]


def test_terminal_without_unicode_gets_none() -> None:
    glyphs = Glyphs.of("latin-1")
    lines = line_texts(frame(view(40), Controls(every=1.0), 80, 24, glyphs))
    ascii_only = [line for line in lines if "GET" not in line]
    assert all(line.isascii() for line in ascii_only)
    assert Glyphs.of("utf8") == Glyphs.of("UTF-8") == GLYPHS


def test_quantile_beyond_the_last_bucket_is_marked() -> None:
    shown = view()
    assert shown.interval is not None
    beyond = replace(shown, interval=replace(shown.interval, p50=10.0, buckets={10.0: 1.0, math.inf: 9.0}))
    assert "> 10.0 s" in drawn(beyond)[2]


@pytest.mark.unmeasured("it counts processor time")
def test_frame_is_cheap() -> None:
    shown = view(16)
    begin = time.process_time()
    for _ in range(20):
        drawn(shown)
    assert (time.process_time() - begin) / 20 < 0.02, "seconds of CPU; it takes one tenth of that"


def routes_in(lines: list[str]) -> list[str]:
    """Return the routes of the table, the last line of it included."""
    heading = next((index for index, line in enumerate(lines) if line.startswith("ROUTE")), len(lines))
    shown = []
    for line in lines[heading + 1 :]:
        if not line.strip() or line.startswith(("exits", "q quit")):
            break
        shown.append(line.split("  ")[0])
    return shown


def test_busiest_routes_stand_first_and_the_others_in_one_line() -> None:
    last, history = watched(4, 70, routes=1000)
    shown = View.of("shop", last, history)
    lines = drawn(shown)
    assert len(lines) == 24
    found = routes_in(lines)
    assert found[:2] == ["/route/999/<id>", "/route/997/<id>"], "998 does nothing now"
    assert found[-1] == f"… {1000 - len(found) + 1} more"
    assert any(line.split()[:2] == ["4", "4004"] for line in lines), "the workers are there as well"
    heading, first = (next(line for line in lines if line.startswith(start)) for start in ("ROUTE", "/route/999"))
    assert heading.split() == ["ROUTE", "REQ/S", "ERRORS", "P50", "P95", "BUSY", "CPU"]
    assert first.split() == ["/route/999/<id>", "1000", "0", "%", "0–0.1", "s", "0.1–1", "s", "0.30", "%", "2000%"]  # noqa: RUF001 - a dash


def test_routes_can_have_all_the_room_or_none() -> None:
    last, history = watched(4, 70, routes=5)
    shown = View.of("shop", last, history)
    only = drawn(shown, tables="routes", route_order="errors")
    assert routes_in(only)[0] == "(no route)"
    assert not any(line.startswith("SLOT") for line in only)
    assert routes_in(drawn(shown, tables="workers")) == []
    assert routes_in(drawn(shown)) == ["/route/4/<id>", "/route/3/<id>", "/route/1/<id>", "(no route)", "/route/2/<id>"]
    paper = line_texts(page(shown, Controls(every=1.0), None, GLYPHS))
    assert len(routes_in(paper)) == 5
    assert "r routes: errors" in drawn(shown, route_order="errors")[-1]


def test_an_application_without_routes_has_no_table_of_them() -> None:
    last, history = watched(4, 70, routes=1)
    lines = drawn(View.of("shop", last, history))
    assert not any(line.startswith("ROUTE") for line in lines)
    assert "r routes" not in lines[-1]


@pytest.mark.unmeasured("it counts processor time")
def test_a_thousand_routes_are_cheap() -> None:
    before, history = watched(16, 2, routes=1000)
    after = snapshot(dict(before.workers), 3, routes=1000)
    begin = time.process_time()
    for _ in range(10):
        interval = Interval.between(before, after)
        drawn(replace(View.of("shop", after, history), interval=interval))
    assert (time.process_time() - begin) / 10 < 0.05, "seconds of CPU; it takes a fifth of that, with every route busy"


def test_terminal_and_status_page_are_given_the_same_texts() -> None:
    """Neither formats a number of its own: what /status.json carries for the browser stands in the frame."""
    last, history = watched(4, 70, requests_left=77, loop_lag=0.0125, routes=7)
    told = to_object(last, history, paths=True)
    lines = line_texts(frame(View.of("shop", last, history), Controls(every=1), 300, 40, GLYPHS))
    missing = [figure["text"] for figure in told["figures"] if not any(figure["text"] in line for line in lines)]
    for worker in told["workers"]:
        (row,) = (line for line in lines if f" {worker['pid']} " in line)
        missing += [text for text in worker["texts"].values() if text not in row]
    for route in told["routes"]:
        (row,) = (line for line in lines if line.startswith(route["texts"]["route"]))
        missing += [text for text in route["texts"].values() if text not in row]
    assert len(told["routes"]) == 7
    assert missing == []
    assert any(f"up {told['instance']['uptime_text']}" in line for line in lines)
