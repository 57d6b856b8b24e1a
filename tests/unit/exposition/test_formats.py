"""The page as text, OpenMetrics, JSON and table."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from promgun.errors import ConfigurationError
from promgun.exposition.formats import render, select
from promgun.instances.entries import Run
from promgun.status.texts import duration
from promgun.system.atomic_file import write_atomically
from promgun.terminal.histograms import Summary, has_all_parts, summaries
from promgun.terminal.instances import render_runs
from promgun.terminal.output import Output
from promgun.terminal.tables import draw


@pytest.fixture
def page() -> list[Metric]:
    """A counter, a gauge of odd values, and a histogram."""
    registry = CollectorRegistry()
    requests = Counter("shop_requests", "Requests.", ["method"], registry=registry)
    requests.labels("GET").inc(3)
    requests.labels("PUT").inc()
    odd = Gauge("shop_odd", "Odd values.", ["kind"], registry=registry)
    for kind, value in (("nan", math.nan), ("up", math.inf), ("down", -math.inf)):
        odd.labels(kind).set(value)
    seconds = Histogram("shop_seconds", "Durations.", ["route"], buckets=(1, 2, 4), registry=registry)
    for value in (0.5, 1.5, 1.5, 3.0):
        seconds.labels("/").observe(value)
    families = list(registry.collect())
    for family in families:
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return families


def test_text_is_read_back(page: list[Metric]) -> None:
    read = list(parse_text(render(page, "text")))
    assert [family.name for family in read] == ["shop_requests", "shop_odd", "shop_seconds"]
    assert read[0].samples == page[0].samples
    assert read[2].samples == page[2].samples


def test_openmetrics_is_read_back(page: list[Metric]) -> None:
    text = render(page, "openmetrics")
    assert text.endswith("# EOF\n")
    families = parse_openmetrics(text)  # type: ignore[no-untyped-call] # untyped upstream
    assert [family.type for family in families] == ["counter", "gauge", "histogram"]


def test_json_has_every_sample(page: list[Metric]) -> None:
    read = json.loads(render(page, "json"))
    assert read[0] == {
        "name": "shop_requests",
        "type": "counter",
        "help": "Requests.",
        "samples": [
            {"name": "shop_requests_total", "labels": {"method": "GET"}, "value": 3.0},
            {"name": "shop_requests_total", "labels": {"method": "PUT"}, "value": 1.0},
        ],
    }
    assert [sample["value"] for sample in read[1]["samples"]] == ["NaN", "+Inf", "-Inf"]
    assert len(read[2]["samples"]) == len(page[2].samples)


def test_json_is_strict(page: list[Metric]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(render(page, "json"), parse_constant=refuse)


@pytest.mark.parametrize(
    ("globs", "names"),
    [
        ([], ["shop_requests", "shop_odd", "shop_seconds"]),
        (["shop_requests"], ["shop_requests"]),
        (["shop_requests_total"], ["shop_requests"]),
        (["*_odd", "*requests*"], ["shop_requests", "shop_odd"]),
        (["*_bucket"], ["shop_seconds"]),
        (["SHOP_*"], []),
        (["nothing"], []),
    ],
)
def test_match_chooses_families(page: list[Metric], globs: list[str], names: list[str]) -> None:
    assert [family.name for family in select(page, globs)] == names


def test_match_of_a_sample_leaves_the_rest_of_its_family_out(page: list[Metric]) -> None:
    (part,) = select(page, ["shop_seconds_c*", "shop_seconds_sum"])
    assert {sample.name for sample in part.samples} == {"shop_seconds_count", "shop_seconds_sum"}
    assert part.documentation == "Durations."
    assert len(page[2].samples) == 6, "the page itself stays whole"


def test_table_has_a_row_a_sample_and_one_a_histogram(page: list[Metric]) -> None:
    lines = render(page, "table").splitlines()
    assert lines[0].split() == ["METRIC", "LABELS", "VALUE"]
    assert lines[1].split() == ["shop_requests_total", "method=GET", "3"]
    assert lines[-1].split(maxsplit=2) == ["shop_seconds", "route=/", "4 observations, mean 1.62, p50 ≤ 2, p99 ≤ 4"]
    assert len(lines) == 1 + 2 + 3 + 1


def test_table_shows_the_samples_of_a_histogram_that_is_not_whole(page: list[Metric]) -> None:
    lines = render(page, "table", ["shop_seconds_bucket"]).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["shop_seconds_bucket"] * 4


def test_table_ends_with_the_routes() -> None:
    registry = CollectorRegistry()
    requests = Counter("gunicorn_requests", "", ["method", "route", "status"], registry=registry)
    seconds = Histogram("gunicorn_request_duration_seconds", "", ["route"], buckets=(0.1, 1), registry=registry)
    cpu = Counter("gunicorn_request_cpu_seconds", "", ["route"], registry=registry)
    for number in range(60):
        requests.labels("GET", f"/r{number}", "200").inc(number)
        requests.labels("GET", f"/r{number}", "503").inc(number)
        seconds.labels(f"/r{number}").observe(number / 100)
    cpu.labels("/r59").inc(0.25)
    lines = render(registry.collect(), "table").splitlines()
    begin = lines.index("") + 1
    assert lines[begin].split() == ["ROUTE", "REQUESTS", "ERRORS", "P50", "P95", "BUSY", "CPU"]
    busiest = "/r59 118 50.0 % 0.1–1 s 0.1–1 s 3.33 % 250 ms"  # noqa: RUF001 - a dash
    assert lines[begin + 1].split() == busiest.split()
    assert lines[-1].split()[:4] == ["10", "more", "90", "50.0"]
    assert len(lines) == begin + 52
    # Without a route that has a name, or without the family, there is nothing to tell.
    assert "ROUTE" not in render(registry.collect(), "table", ["gunicorn_request_cpu*"])


def test_table_in_a_pipe_is_plain_and_never_folds() -> None:
    text = draw(("A", "B"), [("x" * 300, "[bold]y[/bold]")])
    assert text.splitlines()[1] == "x" * 300 + "  [bold]y[/bold]"
    assert "\x1b" not in text


def test_table_on_a_terminal_has_colour_and_keeps_its_width() -> None:
    text = draw(("A", "B"), [("x" * 100, "y")], Output(interactive=True, width=40, color=True))
    assert "\x1b[1m" in text
    plain = draw(("A", "B"), [("x" * 100, "y")], Output(interactive=True, width=40))
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 40


def test_names_on_a_narrow_terminal_stay_in_one_piece_and_nothing_is_lost() -> None:
    name, labels = "gunicorn_worker_requests_in_progress", "listener=http://127.0.0.1:8000 " * 3
    lines = draw(("METRIC", "LABELS", "VALUE"), [(name, labels, "7")], Output(interactive=True, width=80)).splitlines()
    assert sum(name in line for line in lines) == 1
    assert "".join("".join(lines).split()).count("8000") == 3
    assert max(map(len, lines)) <= 80
    long = draw(("METRIC", "VALUE"), [("a_long_name_" * 9, "7")], Output(interactive=True, width=80))
    assert "".join(long.replace("7", "").split()).count("long_name_") == 9


def test_control_characters_of_a_label_do_not_reach_the_terminal() -> None:
    text = draw(("A",), [("\x1b[31mred\r\x9b2J",)], Output(interactive=True, width=80))
    assert r"\x1b[31mred\r\x9b2J" in text


@pytest.mark.parametrize(
    ("environ", "color"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)]
)
def test_no_color_is_honoured(environ: dict[str, str], color: bool) -> None:  # noqa: FBT001 - a parameter of the table above
    with os.fdopen(os.openpty()[1], "w") as stream:
        output = Output.of(stream, environ)
    assert output.interactive
    assert output.color is color


def test_pipe_is_no_terminal(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        assert Output.of(stream, {}) == Output()


# -- histograms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "bound"), [(0.25, 1.0), (0.26, 2.0), (0.75, 2.0), (0.76, 4.0), (1.0, 4.0)])
def test_bound_that_a_share_does_not_exceed(page: list[Metric], share: float, bound: float) -> None:
    ((labels, summary),) = summaries(page[2])
    assert labels == {"route": "/"}
    assert summary.bound(share) == bound


def test_observation_in_the_last_bucket_is_beyond_every_bound() -> None:
    summary = Summary(count=2, total=30, buckets={1.0: 0, 2.0: 1, math.inf: 2})
    assert str(summary) == "2 observations, mean 15, p50 ≤ 2, p99 > 2"


def test_empty_histogram_has_no_figures() -> None:
    summary = Summary(buckets={1.0: 0.0, math.inf: 0.0})
    assert math.isnan(summary.mean)
    assert math.isnan(summary.bound(0.5))
    assert str(summary) == "0 observations"


def test_part_of_a_histogram_is_not_whole(page: list[Metric]) -> None:
    assert has_all_parts(page[2])
    assert not has_all_parts(select(page, ["*_sum"])[0])
    assert not has_all_parts(page[0])


# -- instances -------------------------------------------------------------------------------------------------------


def test_instances_as_table_and_json() -> None:
    run = Run(
        name="shop",
        pid=7,
        started=1000.0,
        application="shop:app",
        worker_type="gthread",
        addresses=("http://127.0.0.1:8000", "unix:/run/shop.sock"),
        metrics_addresses=(),
        store=Path("/dev/shm/promgun-1"),  # noqa: S108 - only a name here
    )
    row = render_runs([run], "table", now=1130.0).splitlines()[1]
    assert row.split() == [
        "shop",
        "7",
        "shop:app",
        "gthread",
        "http://127.0.0.1:8000,",
        "unix:/run/shop.sock",
        "none",
        "2m",
        "10s",
    ]
    (read,) = json.loads(render_runs([run], "json", now=1130.0))
    assert read["addresses"] == ["http://127.0.0.1:8000", "unix:/run/shop.sock"]
    assert read["store"] == "/dev/shm/promgun-1"  # noqa: S108 - same
    assert read["uptime_seconds"] == 130.0


def test_instances_on_a_narrow_terminal_are_records_with_addresses_in_one_piece() -> None:
    addresses = ("http://127.0.0.1:8000", "unix:/run/shop/a-socket-with-a-rather-long-name.sock")
    run = Run(
        name="shop",
        pid=4711,
        started=1000.0,
        application="shop.web.application:create",
        worker_type="gthread",
        addresses=addresses,
        metrics_addresses=("http://127.0.0.1:9164/metrics",),
        store=Path("store"),
    )
    narrow = render_runs((run, run), output=Output(interactive=True, width=80), now=1065.0)
    records = narrow.split("\n\n")
    assert len(records) == 2
    assert records[0].splitlines() == [
        "NAME         shop",
        "PID          4711",
        "APPLICATION  shop.web.application:create",
        "WORKER TYPE  gthread",
        "ADDRESSES    http://127.0.0.1:8000, unix:/run/shop/a-socket-with-a-rather-long-name.sock",
        "METRICS      http://127.0.0.1:9164/metrics",
        "UPTIME       1m 5s",
    ]
    wide = render_runs((run,), output=Output(interactive=True, width=200), now=1065.0)
    assert wide.split()[0] == "NAME"
    assert len(wide.strip().splitlines()) == 3
    in_colour = render_runs((run,), output=Output(interactive=True, width=80, color=True), now=1065.0)
    assert "\x1b[1mNAME\x1b[0m" in in_colour


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m 0s"), (3661, "1h 1m"), (90000, "1d 1h"), (86400 * 400 + 5, "400d 0h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# -- files -----------------------------------------------------------------------------------------------------------


def test_file_is_readable_by_others_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "page.prom"
    before = os.umask(0o077)
    try:
        write_atomically(path, "a 1\n")
    finally:
        os.umask(before)
    assert path.read_text() == "a 1\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "page.prom", tmp_path / "link.prom"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "page.prom"
    pages = [letter * 200_000 for letter in "ab"]
    write_atomically(path, pages[0], durable=False)
    over = threading.Event()

    def write() -> None:
        for turn in range(200):
            write_atomically(path, pages[turn % 2], durable=False)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not over.is_set():
        seen.add(path.read_text())
    writer.join()
    assert seen <= set(pages)
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.prom"]


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [sys.executable, "-c", f"print(open({str(pipe)!r}).read())"], stdout=subprocess.PIPE, text=True
    ) as reader:
        write_atomically(pipe, "a 1")
        assert reader.communicate(timeout=20)[0] == "a 1\n"
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@pytest.mark.parametrize("place", ["absent/page.prom", "."])
def test_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot write .*: .*Choose a file"):
        write_atomically(tmp_path / place, "x")
    assert list(tmp_path.iterdir()) == []
