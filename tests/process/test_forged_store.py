"""Whatever a worker writes into its own files, the page can be parsed, the rest of it is right, and errors are counted.

The files are put into the store of a server that runs, under slots that it does not use.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from promgun.store import format as fmt
from promgun.store.board import SIZE as BOARD_SIZE
from tests.support.harness import PromgunProcess, Sandbox, wait_until
from tests.support.http_client import load, send

ERRORS = "promgun_store_errors_total"
REQUESTS = "gunicorn_requests_total"
NUMBERS = (math.nan, math.inf, -math.inf, -5.0)


def value_file(family: str, sample: str, *series: tuple[dict[str, str], float]) -> bytes:
    """Return a value file with these series of one family."""
    entries = [
        fmt.encode_entry(json.dumps([family, sample, labels, "Forged."]))[:-16] + struct.pack("dd", value, 0.0)
        for labels, value in series
    ]
    body = b"".join(entries)
    return fmt.encode_header(fmt.HEADER_SIZE + len(body)) + body


def bounds() -> bytes:
    return value_file("bounds", "bounds_bucket", ({"le": "abc"}, 3.0), ({"le": "nan"}, 9.0), ({"le": "1.0"}, 2.0))


def names() -> bytes:
    forged = [({name: "x"}, 3.0) for name in ("", "__name__", "__reserved")]
    return value_file("names", "names_total", *forged, ({"ok": "x"}, 2.0))


def our_family() -> bytes:
    labels = {"method": "GET", "route": "x", "status": "200"}
    return value_file(REQUESTS.removesuffix("_total"), REQUESTS, *((labels, number) for number in NUMBERS))


def our_sample_as_a_gauge() -> bytes:
    return value_file(REQUESTS, REQUESTS, ({"method": "GET"}, math.nan))


def large() -> bytes:
    return b"x" * (18 << 20)


def many() -> bytes:
    return value_file("many", "many_total", *(({"n": str(number)}, 1.0) for number in range(60_000)))


#: What is written into which kind of file, and what may be shown of it.
FORGED: dict[str, tuple[Callable[[], bytes], str, dict[str, float]]] = {
    "bounds that are no numbers": (bounds, "histogram", {"bounds_count": 2.0}),
    "names that no label has": (names, "counter", {"names_total": 2.0}),
    "a family of ours": (our_family, "counter", {}),
    "a gauge called like a sample of ours": (our_sample_as_a_gauge, "gauge_max", {}),
    "a large file": (large, "counter", {}),
    "more series than a page may have": (many, "counter", {}),
}
#: Shown by nobody, and so no damage.
UNCOUNTED = {"a family of ours", "a gauge called like a sample of ours"}


@pytest.fixture(scope="module")
def server() -> Iterator[PromgunProcess]:
    with Sandbox() as sandbox, PromgunProcess(sandbox=sandbox, app="counting:app", workers=1) as server:
        assert load(server.address, 10, keepalive=False) == {200: 10}
        server.expect(REQUESTS, 10)
        yield server


def put(server: PromgunProcess, number: int, kind: str, content: bytes) -> Path:
    slots = Path(server.sandbox.runs()[0]["store"]) / "slots"
    path = slots / f"{number}.{kind}"
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    return temporary.rename(path)


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_file_costs_what_it_held(server: PromgunProcess, forged: str) -> None:
    make, kind, shown = FORGED[forged]
    before = server.scrape().value(ERRORS, reason="corrupt")
    path = put(server, 900 + list(FORGED).index(forged), kind, make())
    try:
        if forged not in UNCOUNTED:
            wait_until(lambda: server.scrape().value(ERRORS, reason="corrupt") != before)
        text = server.scrape().text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        # What a file held last stays on the page when it is gone.
        found = {sample.name: sample.value for sample in samples if not sample.name.startswith("gunicorn_")}
        assert {name: found.get(name) for name in shown} == shown
        assert "many_total" not in found
        assert sum(sample.value for sample in samples if sample.name == REQUESTS) == 10
        assert sum(sample.value for sample in samples if sample.name == "shop_orders_total") == 10
        assert all(sample.value >= 0 for sample in samples if sample.name.startswith("gunicorn_"))
        assert send(server.metrics_address, path="/status.json").status == 200
        top = server.sandbox.run("-m", "promgun", "metrics", "top", "--once", "--interval", "0.2")
        assert top.returncode == 0, top.stderr
    finally:
        path.unlink()


def test_a_worker_that_writes_nonsense_into_its_own_slot(server: PromgunProcess) -> None:
    """While it is read: every page can be parsed and has what others say; once the rows are right again, so is it."""
    slot = Path(server.sandbox.runs()[0]["store"]) / "slots" / "1"
    chance = random.Random(9)
    with slot.open("r+b", buffering=0) as file:
        right = file.read()[BOARD_SIZE:]
        used = len(right.rstrip(b"\0"))
        errors = server.scrape().value(ERRORS, reason="corrupt")
        for _ in range(25):
            for _ in range(4):
                os.pwrite(file.fileno(), chance.randbytes(200), BOARD_SIZE + chance.randrange(used))
            page = server.scrape()
            samples = [sample for family in text_string_to_metric_families(page.text) for sample in family.samples]
            ours = [sample for sample in samples if sample.name.startswith(("gunicorn_", "promgun_"))]
            assert [sample for sample in ours if not 0 <= sample.value < math.inf] == []
            assert page.value("gunicorn_up") == 1
            assert page.sum("shop_orders_total") == 10
        assert server.fresh().value(ERRORS, reason="corrupt") != errors
        assert send(server.metrics_address, path="/status.json").status == 200
        os.pwrite(file.fileno(), right, BOARD_SIZE)
    server.expect(REQUESTS, 10)


def test_the_application_may_have_values_that_are_no_numbers(server: PromgunProcess) -> None:
    """They are shown as they are, as stock prometheus_client does; Prometheus reads them."""
    path = put(server, 990, "gauge_max", value_file("odd", "odd", *(({"n": str(one)}, one) for one in NUMBERS)))
    counter = put(server, 991, "counter", value_file("odd_count", "odd_count_total", ({}, math.nan)))
    try:
        wait_until(lambda: server.scrape().select("odd_count_total"))
        page = server.scrape()
        families = {family.name: family for family in text_string_to_metric_families(page.text)}
        shown = {sample.labels["n"]: sample.value for sample in families["odd"].samples}
        assert {name: str(value) for name, value in shown.items()} == {str(one): str(one) for one in NUMBERS}
        assert math.isnan(families["odd_count"].samples[0].value)
        assert page.sum(REQUESTS) == 10
        assert send(server.metrics_address, path="/status.json").status == 200
        json.loads(server.sandbox.run("-m", "promgun", "metrics", "dump", "--format", "json").stdout)
    finally:
        path.unlink()
        counter.unlink()


def test_memory_has_a_budget_and_comes_back(server: PromgunProcess) -> None:
    """Eight files of 15 MiB are twice what one reading may hold, and a family that is too large is not kept."""
    used = server.metrics_pid()
    assert used is not None
    # What other tests had it read is not to be measured.
    os.kill(used, signal.SIGKILL)
    endpoint = psutil.Process(wait_until(lambda: (pid := server.metrics_pid()) != used and pid))
    wait_until(server.scrape)
    before = endpoint.memory_info().rss
    content = value_file("large", "large_total", ({"n": "1"}, 1.0))
    paths = [put(server, 950 + index, "counter", content + bytes((15 << 20) - len(content))) for index in range(8)]
    for path in paths:
        data = bytearray(path.read_bytes())
        data[:8] = fmt.encode_header(len(data))
        path.write_bytes(data)
    assert server.scrape().sum(REQUESTS) == 10
    assert server.scrape().sum(REQUESTS) == 10
    assert endpoint.memory_info().rss - before < 130 << 20
    for path in paths:
        path.unlink()
    path = put(server, 960, "counter", many())
    wait_until(lambda: server.scrape() and endpoint.memory_info().rss - before > 50 << 20)
    path.unlink()
    wait_until(lambda: server.scrape() and endpoint.memory_info().rss - before < 55 << 20)
    assert server.scrape().sum(REQUESTS) == 10
