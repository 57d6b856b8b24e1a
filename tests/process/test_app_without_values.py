"""The application's metrics that prometheus_client keeps out of value files are on the page too."""

from __future__ import annotations

import signal

import pytest

from tests.support.harness import PromgunProcess, is_alive, wait_until
from tests.support.http_client import send


def telling(*args: str, workers: int = 2) -> PromgunProcess:
    """Return a server of the application that tells of itself."""
    return PromgunProcess(*args, app="telling:app", workers=workers)


@pytest.mark.parametrize("args", [(), ("--preload",)], ids=["workers", "preload"])
def test_infos_enums_and_functions(args: tuple[str, ...]) -> None:
    with telling(*args) as server:
        wait_until(lambda: server.scrape().sum("shop_depth") == 6)
        page = server.fresh()
        assert page.value("shop_build_info", part="web", version="1") == 1
        assert page.value("shop_hidden_info", seen="yes") == 1
        assert page.by("shop_mode", "shop_mode") == {"open": 1}
        assert not page.sum("shop_mode", worker_id="1")
        assert send(server.address, path="/close").status == 200
        # One worker of two: the states differ, and each says its own.
        page = server.fresh()
        assert page.sum("shop_mode", shop_mode="closed") == 1
        assert page.sum("shop_mode", shop_mode="open") == 1
        assert {page.sum("shop_mode", worker_id=worker) for worker in ("1", "2")} == {1}
        assert server.log.count("'shop_broken'") <= 2
        assert "ZeroDivisionError" in server.log
        assert "telling.Stock is not on the page: custom collectors are run if --metrics-collector" in server.log


def test_the_newest_definition_is_shown_after_a_reload() -> None:
    with telling(workers=1) as server:
        for _ in range(3):
            assert send(server.address, path="/observe").status == 200
        server.expect("shop_latency_count", 3)
        assert server.scrape().value("shop_changed_total", a="x") == 3
        before = server.workers()
        server.sandbox.write("version", "2")
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: not any(map(is_alive, before)))
        wait_until(lambda: server.scrape().sum("shop_build_info", version="2") == 1)
        assert send(server.address, path="/observe").status == 200
        server.expect("shop_latency_count", 4)
        page = server.fresh()
        assert page.value("shop_latency_bucket", le="1.0") == 0
        assert page.by("le", "shop_latency_bucket") == {"3.0": 4, "10.0": 4, "+Inf": 4}
        assert page.value("shop_latency_sum") == 6
        assert page.families["shop_latency"].documentation == "New text."
        assert page.families["shop_changed"].type == "gauge"
        assert page.value("shop_changed", b="x") == 1
        assert not page.sum("shop_build_info", version="1")
        assert page.by("shop_mode", "shop_mode") == {"open": 1}
        assert page.value("shop_mode", shop_mode="busy") == 0
