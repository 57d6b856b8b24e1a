"""The status page and its JSON, as clients of the endpoint get them."""

from __future__ import annotations

import json
import re
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from promgun.endpoint.html import StatusFeed
from promgun.status.snapshot import Details, OpenRequest, Snapshot, Worker
from tests.support.endpoint_server import Endpoint, families
from tests.support.http_client import send

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

SECRET = OpenRequest(phase="application", age=1.0, method="GET", route="/reset/<token>", path="/reset/s3cret")
FIRST = Snapshot(
    taken=100.0,
    at=1000.0,
    up=True,
    uptime=50.0,
    info={},
    target=1,
    workers={0: Worker(worker_id=0, state="busy", pid=7, running=(SECRET,))},
    slots={},
    requests={"200": 0.0},
    durations={},
    queues=(),
    exits={},
    details=Details(name="shop", application="shop:app"),
)


def after(seconds: float, *, up: bool = True) -> Snapshot:
    """The same server later, with ten requests answered a second."""
    uptime = 50.0 + seconds if up else None
    requests = {"200": 10 * seconds}
    return replace(FIRST, taken=100 + seconds, at=1000 + seconds, uptime=uptime, up=up, requests=requests)


def told(*snapshots: Snapshot) -> list[dict[str, object]]:
    """What one feed says, asked once for each snapshot."""
    coming = iter(snapshots)
    feed = StatusFeed(lambda: next(coming))
    return [json.loads(feed.text()) for _ in snapshots]


def ends(told: dict[str, object]) -> list[float]:
    """When the intervals of the last minute ended, in seconds after the first snapshot."""
    history = told["history"]
    assert isinstance(history, dict)
    return [point["at_unix_seconds"] - 1000 for point in history["points"]]


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    """Run one endpoint for all tests that only ask."""
    with Endpoint(status=lambda: '{"name": "caf\u00e9 \udcff"}') as endpoint:
        yield endpoint


def test_the_page_brings_all_it_needs_and_may_use_nothing_else(server: Endpoint) -> None:
    page = send(server.address)
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    for tag in ("style", "script"):
        contents = re.findall(f"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        hashes = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in contents]
        assert len(hashes) == 1
        assert policy[f"{tag}-src"] == hashes[0]
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "{{" not in page.text
    assert not re.search(r"""\s(src|style|on\w+)=|@import|url\(|https?://(?!www\.w3\.org/2000/svg)""", page.text)


def test_without_javascript_there_are_links(server: Endpoint) -> None:
    page = send(server.address).text
    words = re.search("<noscript>(.*?)</noscript>", page, re.DOTALL)
    assert words is not None
    assert re.findall('href="(.*?)"', words[1]) == ["metrics", "status.json"]
    assert {"metrics", "status.json", "-/healthy", "-/ready"} <= set(re.findall('href="([^:]*?)"', page))


def test_json_is_valid_whatever_names_hold(server: Endpoint) -> None:
    answer = send(server.address, path="/status.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert json.loads(answer.body) == {"name": "café ?"}


@pytest.mark.parametrize("path", ["/", "/status.json"])
def test_nothing_that_a_client_sends_comes_back(server: Endpoint, path: str) -> None:
    plain = send(server.address, path=path)
    asked = send(server.address, path=f"{path}?callback=alert&q=<script>", headers=[("Referer", "http://x/<b>")])
    assert (asked.status, asked.body) == (200, plain.body)
    assert send(server.address, "POST", path).status == 405


def test_those_who_wait_share_a_round_and_no_two_collections_meet() -> None:
    inside = threading.Semaphore(1)
    met, asked = [], []

    def alone() -> None:
        if not inside.acquire(blocking=False):
            met.append(True)
            return
        time.sleep(0.1)
        inside.release()

    def collect() -> list[Metric]:
        alone()
        return families()

    def status() -> str:
        asked.append(True)
        alone()
        return "{}"

    with Endpoint(collect, status=status) as endpoint, ThreadPoolExecutor(20) as pool:
        paths = ["/status.json", "/metrics"] * 10
        answers = pool.map(lambda path: send(endpoint.address, path=path).status, paths)
        assert set(answers) == {200}
    assert not met
    assert 1 <= len(asked) < 10


def test_a_status_that_fails_is_503_and_the_next_one_is_not() -> None:
    coming = iter([None, "{}"])

    def status() -> str:
        text = next(coming)
        if text is None:
            raise OSError("gone")
        return text

    with Endpoint(status=status) as endpoint:
        assert send(endpoint.address, path="/status.json").status == 503
        assert send(endpoint.address).status == 200
        assert send(endpoint.address, path="/status.json").status == 200


def test_the_last_minute_comes_from_the_questions() -> None:
    first, second, third = told(FIRST, after(1), after(2))
    assert (ends(first), first["interval_seconds"]) == ([], None)
    assert ends(second) == [1.0]
    assert ends(third) == [1.0, 2.0]
    now = third["now"]
    assert isinstance(now, dict)
    assert now["requests_per_second"] == 10


def test_many_viewers_make_no_more_intervals_than_one() -> None:
    last = told(*(after(tenth / 10) for tenth in range(51)))[-1]
    assert 5 <= len(ends(last)) <= 6
    assert last["taken_unix_seconds"] == 1005


def test_the_last_minute_is_all_that_is_kept() -> None:
    last = told(*(after(second) for second in range(200)))[-1]
    assert ends(last) == [float(second) for second in range(140, 200)]


def test_who_comes_back_after_a_minute_begins_anew() -> None:
    *_, back, next_one = told(FIRST, after(1), after(62), after(63))
    assert (ends(back), back["interval_seconds"]) == ([], None)
    assert ends(next_one) == [63.0]


def test_a_server_that_comes_back_begins_anew() -> None:
    *_, gone, back, next_one = told(FIRST, after(1), after(2, up=False), after(3), after(4))
    assert gone["up"] is False
    assert (back["up"], ends(back)) == (True, [])
    assert ends(next_one) == [4.0]


@pytest.mark.parametrize("paths", [False, True])
def test_paths_are_told_only_on_request(*, paths: bool) -> None:
    text = StatusFeed(lambda: FIRST, paths=paths).text()
    assert ("s3cret" in text) is paths
    assert json.loads(text)["workers"][0]["running"][0]["route"] == "/reset/<token>"
